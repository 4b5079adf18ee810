"""What every command shares, and the whole pipeline through the real command line."""

import json
from dataclasses import replace

import numpy as np
import pytest

from codec.storage.atomic_files import TEMPORARY
from codec.storage.checkpoint import write_checkpoint
from pgolf.__main__ import COMMANDS, main
from trainer.presets.catalog import find_preset


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_json(pgolf_process, command):
    done = pgolf_process(command, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert f"pgolf {command}" in done.stdout
    assert "--json" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_a_usage_error_also_in_json(pgolf, command):
    done = pgolf(command, "--no-such-option", "--json")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    failure = json.loads(done.stdout)
    assert failure["exit_code"] == 2
    assert failure["error"]["kind"] == "UsageError"
    assert "--no-such-option" in failure["error"]["message"]


def test_unknown_command_and_version(pgolf):
    done = pgolf("pck")
    assert done.returncode == 2
    assert "pck" in done.stderr
    assert pgolf("--version").stdout.startswith("pgolf, version")


@pytest.fixture
def checkpoint(tmp_path):
    random = np.random.default_rng(0)
    tensors = {
        "blocks.0.attn.c_q.weight": random.normal(size=(96, 96)).astype(np.float32),
        "blocks.0.mlp.fc.weight": random.normal(size=(200, 96)).astype(np.float32),
        "norm": np.ones(96, np.float32),
    }
    write_checkpoint(tmp_path / "checkpoint.safetensors", tensors, {})
    return tmp_path / "checkpoint.safetensors"


def test_measure_prints_every_tensor_and_agrees_with_its_json(pgolf, pgolf_process, checkpoint):
    arguments = ("measure", checkpoint, "--recipe", "pr162-small", "--recipe", "pr162", "--peer", "lzma-9e")
    done = pgolf_process(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["weights"] == 96 * 96 + 200 * 96 + 96
    small, original = report["recipes"]
    assert small["bytes"] < small["peer_bytes"]["zstd-22"] < original["bytes"]
    assert set(small["peer_bytes"]) == {"zstd-22", "lzma-9e"}
    assert small["bits_per_weight"] == 8 * small["bytes"] / report["weights"]
    assert 30 < small["snr_db"] < 40
    rows = {row["name"]: row for row in report["tensors"] if row["recipe"] == "pr162-small"}
    # Levels within 0.5 % of their entropy; 96 float16 scales are 16/96 bits per weight more at most.
    matrix = rows["blocks.0.attn.c_q.weight"]
    assert matrix["bits_per_weight"] < 1.005 * matrix["entropy_bits_per_weight"] + 16 / 96
    assert matrix["bytes"] < matrix["peer_bytes"]
    assert matrix["bytes"] == matrix["payload_bytes"] + matrix["scale_bytes"] + matrix["class_bytes"]
    assert (matrix["treatment"], rows["norm"]["over_entropy_percent"]) == ("int6", None)
    table = pgolf(*arguments).stdout
    for name in rows:
        assert name in table
    assert f"{small['bytes']:,}" in table


@pytest.mark.parametrize("case", ["missing", "empty", "not safetensors", "nan", "unknown recipe", "unknown peer"])
def test_measure_refuses_in_one_sentence(pgolf, checkpoint, tmp_path, case):
    bad, extra, code, words = tmp_path / "bad.safetensors", (), 3, case
    if case == "empty":
        bad.touch()
    elif case == "not safetensors":
        bad.write_bytes(b"something else entirely")
        words = "not a safetensors"
    elif case == "nan":
        write_checkpoint(bad, {"w": np.array([[np.nan, 1]], np.float32)}, {})
        words = "bad.safetensors, tensor `w`: 1 of 2 weights are not finite"
    elif case == "missing":
        words = "no such file"
    else:
        bad, code = checkpoint, 2
        extra = ("--recipe", "pr126") if case == "unknown recipe" else ("--peer", "gzip")
    done = pgolf("measure", bad, *extra)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Two hundred small documents of a made-up language with some structure."""
    random = np.random.default_rng(1)
    words = ["".join(random.choice(list("aeioubcdfgklmnprst"), random.integers(2, 8))) for _ in range(300)]
    weights = 1 / np.arange(1, 301)
    lines = [
        json.dumps({"text": " ".join(random.choice(words, 60, p=weights / weights.sum())) + "."}) for _ in range(200)
    ]
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("\n".join(lines))
    return path


def demo(text, out):
    """Its arguments, for three steps on little text."""
    return ("demo", "--text", text, "-o", out, "--steps", "3", "--threads", "1", "--limit-tokens", "1500", "--json")


@pytest.mark.slow
def test_demo_ends_with_a_submission_that_verifies_again(pgolf_process, text, tmp_path):
    out = tmp_path / "demo"
    done = pgolf_process(*demo(text, out))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "pass"
    assert report["total_bytes"] == report["artifact_bytes"] + report["code_bytes"] <= report["cap_bytes"] == 16_000_000
    assert report["penalty"] == pytest.approx(report["packed_bpb"] - report["float_bpb"])
    assert {"order-1", "order-2", "order-3", "xz -9"} == set(report["byte_models"])
    assert sorted(path.name for path in out.iterdir()) == ["data", "report.html", "run", "submission"]
    page = (out / "report.html").read_text()
    assert report["report"] == str(out / "report.html")
    assert f"{report['total_bytes']:,}" in page
    assert f"{report['packed_bpb']:.4f}" in page
    assert "<code>--data DIR</code>" not in page  # nothing that the demo knows is left out
    again = pgolf_process("verify", report["submission"], "--data", report["data"], "--limit-tokens", "1500", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["scores"][0]["bpb"] == pytest.approx(report["packed_bpb"], abs=1e-6)


@pytest.mark.slow
def test_a_second_demo_replaces_the_first_unless_it_fails(pgolf, text, tmp_path, monkeypatch):
    """Up to the verification, with a model of a tenth of the weights; the same inputs give the same submission."""

    def stop(*_):
        raise KeyboardInterrupt

    preset = find_preset("cpu-demo")
    sizes = {"layers": 2, "xsa_layers": 2, "dim": 64, "mlp_hidden": 192, "bigram_buckets": 256}
    small = replace(preset, model=replace(preset.model, **sizes))
    monkeypatch.setattr("trainer.presets.catalog.find_preset", lambda name: small)
    monkeypatch.setattr("pgolf.commands.demo._verify", stop)
    out = tmp_path / "demo"

    def submission():
        done = pgolf(*demo(text, out))
        assert done.returncode == 130, done.stderr
        return [(out / "submission" / name).read_bytes() for name in ("model.bin", "train_gpt.py")]

    first = submission()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    failed = pgolf(*demo(text, out), "--text", tmp_path / "missing.txt")
    assert (failed.returncode, failed.stderr.count("\n")) == (3, 1)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    for name in ("data", "submission"):
        (out / f".{name}{TEMPORARY}abcd_123").mkdir()  # what a killed one leaves
    (out / "run" / "old").touch()
    written = (out / "submission").stat().st_ino
    assert submission() == first
    assert (out / "submission").stat().st_ino != written
    assert not (out / "run" / "old").exists()
    assert sorted(path.name for path in out.iterdir()) == ["data", "run", "submission"]


def test_demo_takes_the_vocabulary_that_a_small_text_yields(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.run.loop.train", stop)
    (tmp_path / "small.txt").write_text("".join(f"The cat {n} sat on mat {n * n}.\n\n" * 9 for n in range(400)))
    assert main(["demo", "--text", str(tmp_path / "small.txt"), "-o", str(tmp_path / "demo")]) == 130
    size = json.loads((tmp_path / "demo" / "data" / "data.json").read_text())["vocab_size"]
    assert 270 < size < 1024


def test_demo_leaves_other_folders_alone(pgolf, tmp_path):
    (tmp_path / "precious").touch()
    done = pgolf("demo", "-o", tmp_path)
    assert done.returncode == 2
    assert "not an earlier demo" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
