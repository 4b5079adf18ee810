"""`margin` in a submission's options: code and artifact land under the cap, and the folder says how."""

import json

import numpy as np
import pytest

from codec import decode, read_meta
from codec.errors import LimitError, UsageError
from codec.quantization.recipe_files import recipe_toml
from codec.storage.checkpoint import read_checkpoint, write_checkpoint
from packager.submission import STAGES, PackOptions, build_submission, plan_submission


@pytest.fixture(scope="module")
def small(checkpoint, tmp_path_factory):
    """Two of the checkpoint's matrices and its config; the script is one of one's own, which needs no model."""
    tensors, notes = read_checkpoint(checkpoint)
    kept = {name: tensors[name] for name in ("tok_emb.weight", "blocks.0.attn.c_q.weight")}
    folder = tmp_path_factory.mktemp("small")
    kept["tok_emb.weight"] = kept["tok_emb.weight"][:40]
    write_checkpoint(folder / "checkpoint.safetensors", kept, {"config": notes["config"]})
    (folder / "mine.py").write_text("from codec.decoder import decode\n")
    return folder


def options(small, recipe, cap, margin=0, **more):
    return PackOptions(
        checkpoint=small / "checkpoint.safetensors",
        recipe=str(recipe),
        script=small / "mine.py",
        cap=cap,
        margin=margin,
        **more,
    )


def total(small, recipe):
    return plan_submission(options(small, recipe, 10**6, None)).total_bytes


def test_the_folder_lands_under_cap_minus_margin(small, recipe, tmp_path):
    cap = int(0.9 * total(small, recipe))
    seen = []
    asked = options(small, recipe, cap, margin=100)
    submission = build_submission(asked, tmp_path / "out", lambda done, note: seen.append(done))
    assert cap - 100 - 150 < submission.total_bytes <= cap - 100
    assert seen == sorted(seen)
    assert seen[-1] == STAGES
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert files == submission.files
    assert read_meta(files["model.bin"])["recipe"] == "six-fit"
    assert json.loads(files["submission.json"])["recipe"] == "six-fit"
    plan = json.loads(files["ledger.json"])["fit"]
    assert plan["artifact_bytes"] == len(files["model.bin"]) == submission.fitted.artifact_bytes
    assert plan["limit_bytes"] == cap - 100 - len(files["train_gpt.py"])
    floats, _ = read_checkpoint(small / "checkpoint.safetensors")
    packed = decode(files["model.bin"])
    for choice in plan["choices"]:
        name, energy = choice["names"][0], np.square(floats[choice["names"][0]], dtype=np.float64).sum()
        error = np.square(packed[name].astype(np.float64) - floats[name]).sum()
        assert choice["snr_db"][1] == pytest.approx(10 * np.log10(energy / error), abs=1e-3)

    again = build_submission(asked, tmp_path / "again")
    assert again.files == submission.files
    (tmp_path / "fitted.toml").write_text(recipe_toml(submission.fitted.recipe))
    by_name = plan_submission(options(small, tmp_path / "fitted.toml", cap, None))
    assert by_name.files["model.bin"] == files["model.bin"]


@pytest.mark.slow
def test_interrupted_and_repeated_it_is_the_same(small, recipe, tmp_path):
    cap = int(0.9 * total(small, recipe))
    asked = options(small, recipe, cap)

    def stop(done, note):
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_submission(asked, tmp_path / "out", stop)
    assert list(tmp_path.iterdir()) == [recipe]  # nothing half-written
    first = build_submission(asked, tmp_path / "out")
    assert first.files == plan_submission(asked).files


def test_what_cannot_be_met_leaves_nothing(small, recipe, tmp_path):
    code = plan_submission(options(small, recipe, 10**6, None)).code_bytes
    with pytest.raises(LimitError, match="over its limit of 1,000; train fewer layers"):
        build_submission(options(small, recipe, code + 1_000), tmp_path / "out")
    with pytest.raises(
        LimitError, match=f"the code alone has {code:,} bytes, 7 over the {code - 7:,} that the cap leaves"
    ):
        build_submission(options(small, recipe, code, margin=7), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [recipe]


def test_what_does_not_go_together(small, recipe):
    with pytest.raises(UsageError, match="recipe `stored` keeps the file's own levels"):
        plan_submission(options(small, "stored", 10**6))
    for margin in (-1, 5_000):
        with pytest.raises(UsageError, match=r"a margin of .* bytes under a cap of 5,000"):
            plan_submission(options(small, recipe, 5_000, margin))
