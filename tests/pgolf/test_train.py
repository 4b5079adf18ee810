"""`pgolf train` as a user runs it: results, interruption and resumption, one-sentence errors."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from codec.storage.checkpoint import read_checkpoint, weights_sha256
from codec.storage.token_shards import shard_bytes
from tests.conftest import ROOT
from trainer.data.dataset import build_dataset

STEPS = 150


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Shards and a tokenizer of 300 pieces, from sentences of twenty words."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghijklmnop"), 4)) for _ in range(20)]
    documents = [" ".join(random.choice(words, 60)) + "." for _ in range(300)]
    folder = tmp_path_factory.mktemp("train") / "data"
    build_dataset(documents, folder, vocab_size=300, val_fraction=0.1)
    return folder


@pytest.fixture(scope="module")
def arguments(data):
    return (
        "train",
        "tiny",
        "--data",
        data,
        "--steps",
        STEPS,
        "--threads",
        1,
        "--device",
        "cpu",
        "--limit-tokens",
        500,
        "--json",
    )


@pytest.fixture(scope="module")
def whole(pgolf_process, arguments, tmp_path_factory):
    """(run folder, what --json said) of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = pgolf_process(*arguments, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def stopped(arguments, folder, number):
    """Start the run, signal it after its first saved state, and give what it left behind."""
    command = [sys.executable, "-m", "pgolf", *map(str, arguments), "-o", str(folder)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not (folder / "state.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert not (folder / "checkpoint.safetensors").exists()
    return process.returncode, output, errors


def test_json_describes_the_run(whole, data):
    folder, said = whole
    assert said.keys() == {"checkpoint", "steps", "tokens", "seconds", "val_loss", "val_bpb", "weights_sha256"}
    assert said["checkpoint"] == str(folder / "checkpoint.safetensors")
    assert (said["steps"], said["tokens"]) == (STEPS, STEPS * 256)
    assert f"val_loss:{said['val_loss']:.8f} val_bpb:{said['val_bpb']:.8f}" in (folder / "train.log").read_text()
    # Twenty words of about five bytes: log2(20) / 5 = 0.9 bits per byte once the words are known.
    assert 0.7 < said["val_bpb"] < 2.0
    tensors, notes = read_checkpoint(said["checkpoint"])
    assert said["weights_sha256"] == weights_sha256(tensors)
    assert f"weights sha256:{said['weights_sha256']}\n" in (folder / "train.log").read_text()
    assert notes["config"]["vocab_size"] == 300
    assert notes["tokenizer_sha256"] == json.loads((data / "data.json").read_text())["tokenizer_sha256"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_stopped_run_resumes_bit_for_bit(pgolf, arguments, whole, tmp_path, number, code):
    folder = tmp_path / "run"
    returned, _, errors = stopped(arguments, folder, number)
    assert returned == code
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        assert "add --resume to the same command" in errors
    done = pgolf(*arguments, "-o", folder, "--resume")
    assert done.returncode == 0, done.stderr
    ours, theirs = (read_checkpoint(path / "checkpoint.safetensors")[0] for path in (folder, whole[0]))
    assert {name: array.tobytes() for name, array in ours.items()} == {
        name: array.tobytes() for name, array in theirs.items()
    }
    assert json.loads(done.stdout)["val_loss"] == whole[1]["val_loss"]


def test_settings_are_part_of_what_the_run_is(pgolf, data, tmp_path):
    """Late QAT from the first step; resuming without it is another run."""
    arguments = ("train", "tiny", "--data", data, "--steps", 4, "--limit-tokens", 50, "--threads", 1, "--json", "-o")
    late = ("--set", "qat_below=2", "--set", "qat_recipe=pr162-small")
    folder = tmp_path / "run"
    done = pgolf(*arguments, folder, *late)
    assert done.returncode == 0, done.stderr
    settings = json.loads((folder / "train.log").read_text().splitlines()[0])["train"]
    assert (settings["qat_below"], settings["qat_recipe"]) == (2.0, "pr162-small")
    plain = json.loads(pgolf(*arguments, tmp_path / "plain").stdout)
    assert json.loads(done.stdout)["weights_sha256"] != plain["weights_sha256"]
    again = pgolf(*arguments, folder, "--resume")
    assert again.returncode == 2
    assert "the saved run is another one: train.qat_below was 2.0, is 0.0, train.qat_recipe was" in again.stderr


def test_the_table_is_for_people(pgolf, data, tmp_path):
    done = pgolf("train", "tiny", "--data", data, "--steps", 3, "--limit-tokens", 100, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "val bpb" in done.stdout
    assert "100 of " in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "run" / "checkpoint.safetensors")


def test_help_has_an_example(pgolf):
    done = pgolf("train", "--help")
    assert "pgolf train cpu-demo --data data -o run" in done.stdout


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (
            ("train", "cpu-dem"),
            2,
            "there is no preset `cpu-dem`; did you mean `cpu-demo`? presets: baseline, cpu-bench, cpu-demo, ",
        ),
        (("train", "pr162"), 2, "has 300 pieces, preset pr162 needs 1024"),
        (("--data", "nowhere"), 3, "nowhere: "),
        (("--steps", 0), 2, "--steps"),
        (("--tokenizer", "missing.model"), 3, "missing.model: "),
        (("--val", "missing.bin"), 3, "missing.bin: no such token shard"),
        (("--set", "qat_bellow=0.1"), 2, "there is no setting `qat_bellow`; did you mean `qat_below`?"),
        (("--set", "layers=1"), 2, "the model has 1 layers, skip connections need at least 2"),
        (("--tracker", "mlflow"), 2, "'mlflow' is not one of 'tensorboard', 'wandb', 'trackio'"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(pgolf, data, tmp_path, change, code, words):
    options = {"train": "tiny", "--data": data, "-o": tmp_path / "run", change[0]: change[1]}
    done = pgolf(*(part for option in options.items() for part in option), cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_damaged_shards_are_one_sentence(pgolf, data, tmp_path):
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (shard,) = tmp_path.glob("*_train_*.bin")
    good = shard.read_bytes()
    for content, words in [(b"", "has 0 bytes"), (b"x" * 2000, "has magic"), (good[:-1], "is cut or damaged")]:
        shard.write_bytes(content)
        done = pgolf("train", "tiny", "--data", tmp_path, "-o", tmp_path / "run")
        assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
        assert words in done.stderr
        assert shard.name in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_validation_shard_of_another_tokenizer_is_named(pgolf, data, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(shard_bytes(np.array([1, 299, 300, 301])))
    done = pgolf("train", "tiny", "--data", data, "--val", other, "-o", tmp_path / "run")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert done.stderr.startswith(f"Error: {other}: token ids span 1 to 301, the tokenizer has 300 pieces; ")
    assert not (tmp_path / "run").exists()


def test_a_missing_tracker_is_one_sentence(pgolf, data, tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    done = pgolf("train", "tiny", "--data", data, "-o", tmp_path / "run", "--tracker", "wandb")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "tracker wandb needs the package wandb, which is not installed; pip install wandb" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_shard_shorter_than_a_sequence_is_one_sentence(pgolf, data, tmp_path):
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "text_train_000001.bin").write_bytes(shard_bytes(np.arange(20)))
    done = pgolf("train", "tiny", "--data", tmp_path, "-o", tmp_path / "run")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "text_train_000001.bin: has 20 tokens, one training sequence needs 33" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_without_a_compiler_compiling_is_one_sentence(pgolf_process, data, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    done = pgolf_process("train", "tiny", "--data", data, "-o", tmp_path / "run", "--device", "cpu", "--compile")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert "torch.compile does not work here" in done.stderr
    assert "or train with --no-compile" in done.stderr
    assert not (tmp_path / "run").exists()
