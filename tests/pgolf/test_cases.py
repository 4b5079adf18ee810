"""Every input of ../shared/cases beside what its README says; logs and submissions are in tests/verify/test_cases.py.

A case that is added there must be named here, or it fails.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

from codec.storage.token_shards import find_shards, open_shard, stated_bytes
from packager.importers.read_any import read_any
from verify.scoring.token_bytes import BOS

Check = Callable[..., None]


def same_tensors(pgolf, case: Path, tmp_path: Path) -> None:
    """As without the wrapper."""
    have, plain = read_any(case).tensors, read_any(case.parent / "nest_net.pt").tensors
    assert {name: each.tobytes() for name, each in have.items()} == {
        name: each.tobytes() for name, each in plain.items()
    }
    assert not any({"module", "model", "_orig_mod", "_fsdp_wrapped_module"} & {*name.split(".")} for name in have)


def no_weight_in_the_copy(pgolf, case: Path, tmp_path: Path) -> None:
    tensors = read_any(case).tensors
    alone = sum(each.size for name, each in tensors.items() if name != "lm_head.weight")
    assert json.loads(pgolf("measure", case, "--json").stdout)["weights"] == alone
    assert json.loads(pgolf("inspect", case, "--json").stdout)["checkpoint"]["weights"] == alone


def carried_along(pgolf, case: Path, tmp_path: Path) -> None:
    said = json.loads(pgolf("wrap", case, "-o", tmp_path / "out.py", "--json").stdout)
    assert said["modules"] == ["helper_module"]
    assert not any("helper_module" in line for line in said["requirements"])


def refused_as_copies(pgolf, case: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="the same"):
        find_shards(case, "val")


def over_the_sidecar(pgolf, case: Path, tmp_path: Path) -> None:
    """The bytes of each target are the sidecar's, whatever the tokenizer would say."""
    stated = stated_bytes(find_shards(case, "val"))
    own = np.fromfile(case / "fineweb_val_bytes_000000.bin", "<u2")[512:]  # 1024 bytes of header
    assert np.array_equal(stated, own)
    assert len(stated) == len(open_shard(case / "fineweb_val_000000.bin"))


def counted_right(pgolf, case: Path, tmp_path: Path) -> None:
    """Bytes are those of the text, twofold spaces and those at line ends among them."""
    texts = [f"  Two  spaces {i}\n and a line \nmore. " for i in range(30)]
    (tmp_path / "text.txt").write_text("<|endoftext|>".join(texts))
    done = pgolf("data", tmp_path / "text.txt", "--tokenizer", case, "-o", tmp_path / "data", "--json")
    assert done.returncode == 0, done.stderr
    said, model = json.loads(done.stdout), SentencePieceProcessor(model_file=str(case))
    for split in ("train", "val"):
        ids = np.concatenate([open_shard(path) for path in find_shards(tmp_path / "data", split)])
        documents = [part[part != BOS].tolist() for part in np.split(ids, np.flatnonzero(ids == BOS))]
        decoded = [model.decode(each) for each in documents if each]
        assert said[split]["bytes"] == sum(len(each.encode()) for each in decoded)
        assert {*decoded} <= {text.strip() for text in texts}  # as documents are cut


CASES: dict[str, Check | None] = {
    "caseops": over_the_sidecar,
    "checkpoints/nanogpt_tied.pt": no_weight_in_the_copy,
    "checkpoints/nest_model_is_config.pt": same_tensors,
    "checkpoints/nest_net.pt": same_tensors,
    "checkpoints/pre_avgmodel.pt": same_tensors,
    "checkpoints/pre_fsdp_wrapped.pt": same_tensors,
    "checkpoints/pre_orig_mod.safetensors": same_tensors,
    "scripts/relimport.py": carried_along,
    "scripts/helper_module.py": None,  # beside relimport.py
    "shards/copy_vals": refused_as_copies,
    "tokenizers/keepspace.model": counted_right,
}


@pytest.mark.parametrize("name", [name for name, check in CASES.items() if check])
def test_each_case_gives_what_its_readme_says(pgolf, shared, tmp_path, name):
    check = CASES[name]
    assert check is not None
    check(pgolf, shared / "cases" / name, tmp_path)


def test_no_case_is_left_out(shared):
    folders = ("checkpoints", "scripts", "shards", "tokenizers")
    found = {
        file.relative_to(shared / "cases").as_posix()
        for each in folders
        for file in (shared / "cases" / each).iterdir()
    }
    assert found | {"caseops"} == CASES.keys()
    rest = {path.name for path in (shared / "cases").iterdir() if path.is_dir()} - {*folders, "caseops"}
    assert rest == {"logs", "submissions"}  # tests/verify/test_cases.py


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, check in CASES.items() if check is same_tensors])
def test_each_wrapped_checkpoint_is_packed(pgolf, shared, tmp_path, name):
    done = pgolf("pack", shared / "cases" / name, "--recipe", "pr162", "--eval-only", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
