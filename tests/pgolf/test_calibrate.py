"""`pgolf calibrate`, and `pack` and `measure` with what it found, as a user runs them."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from codec import decode
from codec.storage.calibration_file import CHECKPOINT, HESSIAN, SENSITIVITY, sha256
from codec.storage.checkpoint import read_checkpoint, write_checkpoint
from codec.storage.token_shards import shard_bytes
from pgolf.__main__ import main
from tests.packager.conftest import checkpoint, data  # noqa: F401
from trainer.presets.catalog import PRESETS

RULES = """\
version = 1
name = "four"
about = "1716's rules, for small matrices and with large steps"
coder = "zstd-22"
[[rules]]
names = ["blocks.*.attn.*.weight", "blocks.*.mlp.*.weight", "tok_emb.weight"]
treatment = "int4"
step = "std"
k = 6.0
gptq = true
[[rules]]
treatment = "float16"
"""

SHRUNK = {"vocab_size": 128, "seq_len": 64, "layers": 6, "dim": 64, "heads": 4, "kv_heads": 2, "mlp_hidden": 128}
SHRUNK |= {"bigram_buckets": 128, "bigram_dim": 16, "rope_dims": 8, "value_embed_dim": 16, "xsa_layers": 6}


@pytest.fixture(scope="module")
def run(checkpoint, data, tmp_path_factory):  # noqa: F811
    """Folder with run/checkpoint.safetensors and its train.log, data/ with a training shard, four.toml."""
    folder = tmp_path_factory.mktemp("calibrate")
    shutil.copytree(checkpoint.parent, folder / "run")
    shutil.copytree(data, folder / "data")
    walk = np.random.default_rng(0).integers(0, 300, 3000)  # correlated ids, so that inputs are not all alike
    (folder / "data" / "tiny_train_000000.bin").write_bytes(shard_bytes(np.abs(np.diff(walk)) // 3 + walk[1:] // 2))
    (folder / "four.toml").write_text(RULES)
    return folder


@pytest.fixture(scope="module")
def calibrated(pgolf_process, run):
    """(run folder, what --json said)."""
    done = pgolf_process(
        "calibrate", "run/checkpoint.safetensors", "--data", "data", "--sequences", 40, "--batch", 8, "--json", cwd=run
    )
    assert done.returncode == 0, done.stderr
    return run, json.loads(done.stdout)


def test_it_writes_beside_the_checkpoint_and_counts_its_time(calibrated):
    folder, said = calibrated
    assert said["calibration"] == "run/calibration.safetensors"
    assert (said["source"], said["sequences"], said["tokens"], said["layers"]) == ("data", 40, 40 * 32, 14)
    assert (said["train_seconds"], said["budget_seconds"]) == (1.5, 600)
    assert said["total_seconds"] == pytest.approx(1.5 + said["seconds"])
    first, *others = (folder / "run" / "train.log").read_text().splitlines()
    assert first == "step:3/3 train_loss:5.7"
    assert re.fullmatch(r"phase_times calibrate:\d+ms", others[0])
    arrays, notes = read_checkpoint(folder / "run" / "calibration.safetensors")
    assert notes[CHECKPOINT] == sha256(folder / "run" / "checkpoint.safetensors")
    assert (notes["source"], notes["seed"], notes["batch"], notes["sequences"]) == ("data", 0, 8, 40)
    tensors, _ = read_checkpoint(folder / "run" / "checkpoint.safetensors")
    for name in ("tok_emb.weight", "bigram.proj.weight", "blocks.1.attn.c_k.weight", "blocks.0.mlp.proj.weight"):
        rows, columns = tensors[name].shape
        assert arrays[HESSIAN + name].shape == (columns, columns)
        assert arrays[SENSITIVITY + name].shape == (rows,)


def test_its_line_in_the_log_replaces_an_earlier_one(calibrated, tmp_path, capsys):
    folder, _ = calibrated
    source, log = shutil.copy(folder / "run" / "checkpoint.safetensors", tmp_path), tmp_path / "train.log"
    before = b"step:3/3 train_loss:5.7\nphase_times train:9ms\nphase_times calibrate:77ms\nresumed \xff\n"
    log.write_bytes(before)
    for _ in range(2):
        assert main(["calibrate", source, "--source", "self", "--sequences", "1"]) == 0
    kept = before.replace(b"phase_times calibrate:77ms\n", b"")
    assert re.fullmatch(re.escape(kept) + rb"phase_times calibrate:\d+ms\n", log.read_bytes())


def test_equal_runs_give_equal_bytes_and_leave_other_folders_alone(pgolf, calibrated, tmp_path):
    folder, _ = calibrated
    (tmp_path / "alone").mkdir()
    shutil.copy(folder / "run" / "checkpoint.safetensors", tmp_path / "alone")
    arguments = ("calibrate", tmp_path / "alone" / "checkpoint.safetensors", "--data", folder / "data")
    done = pgolf(*arguments, "--sequences", 40, "--batch", 8, "-o", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again").read_bytes() == (folder / "run" / "calibration.safetensors").read_bytes()
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["checkpoint.safetensors"]
    assert re.search(r"both, of the budget +\d+\.\d of 600", done.stdout)


@pytest.mark.slow
def test_gptq_loses_less_of_what_the_layers_give(pgolf, pgolf_process, calibrated, monkeypatch):
    """tr(E H E^T) of what is in the packed artifact, layer by layer and in total; the same bytes with more threads."""
    folder, _ = calibrated
    base = ("pack", "run/checkpoint.safetensors", "--recipe", "four.toml")
    plain = pgolf(*base, "-o", "plain", cwd=folder)
    assert plain.returncode == 0, plain.stderr
    assert "note: recipe four wants GPTQ for 13 tensors, without Hessians they are rounded" in plain.stderr
    gptq = pgolf(*base, "--eval-only", "--hessians", "run/calibration.safetensors", "-o", "gptq", cwd=folder)
    assert (gptq.returncode, gptq.stderr) == (0, "")
    monkeypatch.setenv("PYTHONHASHSEED", "4711")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    again = pgolf_process(*base, "--hessians", "run/calibration.safetensors", "-o", "again", cwd=folder)
    assert again.returncode == 0, again.stderr
    for path in (folder / "gptq").iterdir():
        assert (folder / "again" / path.name).read_bytes() == path.read_bytes()
    tensors, _ = read_checkpoint(folder / "run" / "checkpoint.safetensors")
    arrays, _ = read_checkpoint(folder / "run" / "calibration.safetensors")
    errors = {}
    for kind in ("plain", "gptq"):
        decoded = decode((folder / kind / "model.bin").read_bytes())
        for name in tensors:
            if name.startswith(("blocks.", "tok_emb")) and HESSIAN + name in arrays:
                error = (decoded[name] - tensors[name]).astype(np.float64)
                errors[kind, name] = ((error @ arrays[HESSIAN + name]) * error).sum()
    names = {name for _, name in errors}
    assert len(names) == 13
    assert all(errors["gptq", name] < errors["plain", name] for name in names)
    assert sum(errors["gptq", name] for name in names) < 0.9 * sum(errors["plain", name] for name in names)
    records = [json.loads((folder / kind / "submission.json").read_text()) for kind in ("plain", "gptq")]
    assert records[0]["hessians_sha256"] is None
    assert records[1]["hessians_sha256"] == sha256(folder / "run" / "calibration.safetensors")


def test_measure_weighs_the_error_with_the_hessians(calibrated, capsys, monkeypatch):
    folder, _ = calibrated
    monkeypatch.chdir(folder)
    plain = folder / "plain.toml"
    plain.write_text(RULES.replace("gptq = true\n", "").replace('"four"', '"plain"'))
    arguments = ["measure", "run/checkpoint.safetensors", "--recipe", "four.toml", "--recipe", "plain.toml"]
    assert main([*arguments, "--hessians", "run/calibration.safetensors", "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    four, rounded = report["recipes"]
    assert "note" not in err
    assert four["hessian_snr_db"] > rounded["hessian_snr_db"] + 0.5
    assert four["snr_db"] < rounded["snr_db"]  # it pays with the weights' own error
    assert {row["hessian_snr_db"] is None for row in report["tensors"] if row["name"] == "tok_emb.weight"} == {False}
    assert {row["hessian_snr_db"] for row in report["tensors"] if row["name"] == "skip_weights"} == {None}
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.count("note: recipe four wants GPTQ") == 1
    assert [each["hessian_snr_db"] for each in json.loads(out)["recipes"]] == [None, None]
    assert main([*arguments[:4], "--hessians", "run/calibration.safetensors"]) == 0
    assert "Hessian dB" in capsys.readouterr().out


def test_its_own_text_will_do(calibrated, tmp_path, capsys):
    folder, _ = calibrated
    source = shutil.copy(folder / "run" / "checkpoint.safetensors", tmp_path)
    for name in ("a", "b"):
        arguments = ["calibrate", source, "--source", "self", "--sequences", "3", "--batch", "2", "--seed", "5"]
        assert main([*arguments, "-o", str(tmp_path / name), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["tokens"] == 96
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_checkpoint(tmp_path / "a")[1]["source"] == "self"


def test_banked_matrices_get_the_names_of_the_others(shared, tmp_path, capsys):
    """A checkpoint in pull request 1176's own layout."""
    config = replace(PRESETS["pr1176"].model, **SHRUNK)
    with np.load(shared / "data/golden/1176/model.npz") as golden:
        state = {name.removeprefix("state/"): golden[name] for name in golden if name.startswith("state/")}
    with np.load(shared / "data/golden/1176/hessian.npz") as golden:
        names = set(golden["names"])
    path, recipe = tmp_path / "banked.safetensors", tmp_path / "four.toml"
    recipe.write_text(RULES)
    write_checkpoint(path, state, {"config": config.to_dict()})
    assert main(["calibrate", str(path), "--source", "self", "--sequences", "2", "--json"]) == 0
    capsys.readouterr()
    arrays, _ = read_checkpoint(tmp_path / "calibration.safetensors")
    assert {HESSIAN + name for name in names} <= arrays.keys()
    assert "qo_bank" in state
    arguments = ["measure", str(path), "--recipe", str(recipe), "--json"]
    assert main([*arguments, "--hessians", str(tmp_path / "calibration.safetensors")]) == 0
    weighed = {row["name"] for row in json.loads(capsys.readouterr().out)["tensors"] if row["hessian_snr_db"]}
    assert weighed == names | {"tok_emb.weight"}


def test_wrong_inputs_get_one_line(calibrated, checkpoint, tmp_path, capsys, monkeypatch):  # noqa: F811
    folder, _ = calibrated
    monkeypatch.chdir(tmp_path)
    run, calibration = folder / "run" / "checkpoint.safetensors", folder / "run" / "calibration.safetensors"
    tensors, notes = read_checkpoint(run)
    write_checkpoint("bare.safetensors", {"x": np.ones((2, 2), np.float32)}, {})
    write_checkpoint("misfit.safetensors", {**tensors, "smear.gate": np.ones(3, np.float32)}, notes)
    write_checkpoint("twin.safetensors", {**tensors, "smear.gate": tensors["smear.gate"] + 1}, notes)
    arrays, found = read_checkpoint(calibration)
    del arrays[HESSIAN + "blocks.1.mlp.fc.weight"]
    write_checkpoint("lacking.safetensors", arrays, found)
    holes = tensors["blocks.1.mlp.fc.weight"] * np.nan
    write_checkpoint("holes.safetensors", {**tensors, "blocks.1.mlp.fc.weight": holes}, notes)
    for name in ("other", "words", "made_elsewhere"):
        shutil.copytree(folder / "data", name)
    (tmp_path / "made_elsewhere" / "data.json").write_text(json.dumps({"tokenizer_sha256": "12" * 32}))
    (tmp_path / "other" / "tiny.model").write_bytes(b"another")
    (tmp_path / "words" / "tiny_train_000000.bin").write_bytes(shard_bytes(np.full(9999, 5000)))
    before, log = sorted(tmp_path.rglob("*")), (folder / "run" / "train.log").read_bytes()
    recipe, data_dir = str(folder / "four.toml"), ("--data", str(folder / "data"))
    pack = ("pack", str(run), "--recipe", recipe, "-o", "out", "--hessians")
    for arguments, code, message in [
        (("calibrate", str(run)), 2, "--data DIR is missing; or let the model write its own text"),
        (("calibrate", "missing", *data_dir), 3, "missing: no such file"),
        (("calibrate", "bare.safetensors", *data_dir), 3, "bare.safetensors: its 1 tensors are not those of a known"),
        (("calibrate", "misfit.safetensors", *data_dir), 3, "misfit.safetensors, smear.gate: the file has shape 3, "),
        (("calibrate", str(run), "--data", str(checkpoint.parent), "-o", "x"), 3, "holds no *_train_*.bin shard"),
        (("calibrate", str(run), "--data", "other", "-o", "x"), 3, "other: the tokenizer here is not the one"),
        (("calibrate", str(run), "--data", "made_elsewhere", "-o", "x"), 3, ".bin: was made with the tokenizer of sha"),
        (("calibrate", "holes.safetensors", *data_dir, "--sequences", "8"), 3, "holes.safetensors: the inputs or"),
        (("calibrate", str(run), "--data", "words", "-o", "x"), 3, "is 5000, the model knows ids below 320"),
        (("calibrate", str(run), *data_dir, "--sequences", "0"), 2, "0 is not in the range x>=1"),
        ((*pack, "missing"), 3, "missing: no such file"),
        ((*pack, str(run)), 3, "is not a calibration file"),
        ((*pack, "lacking.safetensors"), 3, "tensor `blocks.1.mlp.fc.weight`: has no Hessian"),
        (("pack", "twin.safetensors", *pack[2:], str(calibration)), 3, "was made from a checkpoint of sha256"),
        (("measure", "twin.safetensors", "--hessians", str(calibration)), 3, "was made from a checkpoint of sha256"),
        (("pack", str(run), "--recipe", "stored", *pack[4:], str(calibration)), 2, "Hessians cannot change them"),
    ]:
        assert main([*arguments]) == code, arguments
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), arguments
        assert err.startswith("Error: ")
        assert message in err
    assert sorted(tmp_path.rglob("*")) == before
    assert (folder / "run" / "train.log").read_bytes() == log
