"""The submission folder: true, reproducible, under the cap, complete or absent."""

import hashlib
import json
import shutil
from importlib import metadata

import numpy as np
import pytest

from codec import decode, read_meta
from codec.errors import InputError, LimitError, UsageError
from codec.storage.checkpoint import read_checkpoint, write_checkpoint
from packager.script.wrapper import MAIN, unwrap
from packager.submission import PackOptions, build_submission, plan_submission


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_says_what_is_true(checkpoint, recipe, tmp_path):
    options = PackOptions(checkpoint=checkpoint, recipe=str(recipe), author="A. Üser", title="Tiny")
    submission = build_submission(options, tmp_path / "out")
    files = contents(tmp_path / "out")
    assert set(files) == {
        "train_gpt.py",
        "model.bin",
        "submission.json",
        "README.md",
        "requirements.txt",
        "train.log",
        "ledger.json",
    }
    assert files == submission.files

    record = json.loads(files["submission.json"])
    code, model = files["train_gpt.py"], files["model.bin"]
    assert (record["bytes_code"], record["bytes_model"]) == (len(code), len(model))
    assert record["bytes_total"] == len(code) + len(model) == submission.total_bytes
    assert record["artifact_sha256"] == hashlib.sha256(model).hexdigest()
    assert record["script_sha256"] == hashlib.sha256(code).hexdigest()
    assert (record["author"], record["name"], record["seeds"], record["steps"]) == ("A. Üser", "Tiny", [7], 3)
    assert (record["val_bpb"], record["val_loss"], record["date"]) == (None, None, None)

    assert read_meta(model)["recipe"] == "six"
    assert read_meta(model)["config"]["dim"] == 64
    versions = [metadata.version(name).partition("+")[0] for name in ("numpy", "sentencepiece", "torch")]
    assert files["requirements.txt"].decode() == "numpy=={}\nsentencepiece=={}\ntorch=={}\n".format(*versions)
    assert files["train.log"] == (checkpoint.parent / "train.log").read_bytes()
    assert f"{len(code) + len(model):,}" in files["README.md"].decode()
    assert {"codec.decoder", "trainer.model.gpt", MAIN} <= set(unwrap(code))

    ledger = json.loads(files["ledger.json"])
    parts = ledger["artifact"]
    spent = sum(row["bytes"] for row in parts["tensors"]) + sum(
        parts[f"{part}_bytes"] for part in ("header", "table", "lane")
    )
    assert spent == pytest.approx(len(model), abs=0.1)
    assert ledger["code"]["bytes"] == len(code)
    assert ledger["total_bytes"] == submission.total_bytes


def test_the_weights_come_back_within_half_a_step(checkpoint, recipe):
    floats, _ = read_checkpoint(checkpoint)
    packed = decode(plan_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe))).files["model.bin"])
    assert set(packed) == set(floats)
    for name, array in floats.items():
        step = np.abs(array).max() / 31
        assert np.abs(packed[name] - array).max() <= 0.51 * step, name


def test_equal_inputs_give_equal_folders(checkpoint, recipe, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(checkpoint.parent, moved)
    first = build_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe)), tmp_path / "a" / "out")
    second = build_submission(PackOptions(checkpoint=moved / checkpoint.name, recipe=str(recipe)), tmp_path / "b")
    assert contents(tmp_path / "a" / "out") == contents(tmp_path / "b")
    assert first.sha256 == second.sha256
    changed = plan_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe), author="x"))
    assert changed.sha256 != first.sha256


def test_the_cap_is_exact(checkpoint, recipe):
    total = plan_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe))).total_bytes
    assert plan_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe), cap=total)).total_bytes == total
    with pytest.raises(LimitError, match=f"1 over the cap of {total - 1:,}; .*tok_emb.weight"):
        plan_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe), cap=total - 1))


def test_over_the_cap_nothing_is_left_and_nothing_replaced(checkpoint, recipe, tmp_path):
    build_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe)), tmp_path / "out")
    before = contents(tmp_path / "out")
    for folder in ("out", "new"):
        with pytest.raises(LimitError):
            build_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe), cap=20_000), tmp_path / folder)
    assert contents(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", recipe.name}


def test_a_folder_of_someone_else_is_not_replaced(checkpoint, recipe, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="not an earlier output"):
        build_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe)), tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"thesis.txt": b"x"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_checkpoint_with_nan_is_refused(checkpoint, recipe, tmp_path, value):
    tensors, notes = read_checkpoint(checkpoint)
    tensors["blocks.0.mlp.fc.weight"] = tensors["blocks.0.mlp.fc.weight"].copy()
    tensors["blocks.0.mlp.fc.weight"][3, 4] = value
    write_checkpoint(tmp_path / "bad.safetensors", tensors, {"config": notes["config"]})
    with pytest.raises(InputError, match=r"bad\.safetensors, tensor `blocks\.0\.mlp\.fc\.weight`: 1 of 8192"):
        build_submission(PackOptions(checkpoint=tmp_path / "bad.safetensors", recipe=str(recipe)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_config_needs_a_script(checkpoint, recipe, tmp_path):
    tensors, _ = read_checkpoint(checkpoint)
    write_checkpoint(tmp_path / "bare.safetensors", tensors, {})
    script = tmp_path / "mine.py"
    script.write_text("# only a comment survives in no form\nfrom codec.decoder import decode\nimport flash_attn\n")
    with pytest.raises(InputError, match="no model config"):
        plan_submission(PackOptions(checkpoint=tmp_path / "bare.safetensors", recipe=str(recipe)))
    own = plan_submission(PackOptions(checkpoint=tmp_path / "bare.safetensors", recipe=str(recipe), script=script))
    assert list(unwrap(own.files["train_gpt.py"])) == ["codec.errors", "codec.decoder", MAIN]
    lines = own.files["requirements.txt"].decode().splitlines()
    assert [line.partition("==")[0] for line in lines] == ["flash-attn", "numpy"]
    as_written = plan_submission(
        PackOptions(checkpoint=tmp_path / "bare.safetensors", recipe=str(recipe), script=script, minified=False)
    )
    assert unwrap(as_written.files["train_gpt.py"])[MAIN] == script.read_text()
    assert as_written.code_bytes > own.code_bytes


def test_a_script_that_cannot_read_the_artifact_is_refused(checkpoint, recipe, tmp_path):
    (tmp_path / "mine.py").write_text("import torch\nblob = open('final_model.int6.ptz', 'rb').read()\n")
    options = PackOptions(checkpoint=checkpoint, recipe=str(recipe), script=tmp_path / "mine.py")
    with pytest.raises(InputError, match=r"does not import codec\.decoder.*with --artifact FILE"):
        plan_submission(options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe", "is not Python source"),
        (b"x = (", "is not valid Python"),
        (b"import packager.script.wrapper", "cannot carry"),
    ],
)
def test_a_bad_script_is_named(checkpoint, recipe, tmp_path, source, message):
    script = tmp_path / "mine.py"
    script.write_bytes(source)
    with pytest.raises(InputError, match=message) as caught:
        plan_submission(PackOptions(checkpoint=checkpoint, recipe=str(recipe), script=script))
    assert str(script) in caught.value.where
