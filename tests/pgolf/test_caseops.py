"""A CaseOps folder from text to verdict: data, train, pack, the packed script and verify count the sidecar's bytes."""

import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from codec.storage.token_shards import find_shards, stated_bytes
from tests.verify.conftest import train_tokenizer
from trainer.data.caseops import MARKS, to_caseops

TEXTS = [f"Mr {name} of NASA met McDonald {i} times. It was LATE." for i in range(40) for name in ("Bo", "Ann", "Éd")]


@pytest.fixture(scope="module")
def made(pgolf, tmp_path_factory):
    """data and run, made by the commands."""
    folder = tmp_path_factory.mktemp("caseops")
    train_tokenizer(folder / "marks.model", map(to_caseops, TEXTS), vocab_size=340, user_defined_symbols=list(MARKS))
    (folder / "text.txt").write_text("<|endoftext|>".join(TEXTS))
    said = pgolf("data", folder / "text.txt", "--tokenizer", folder / "marks.model", "-o", folder / "data", "--json")
    assert said.returncode == 0, said.stderr
    shrunk = [f"--set={each}" for each in ("seq_len=32", "batch_tokens=256")]
    done = pgolf("train", "tiny", "--data", folder / "data", "-o", folder / "run", "--steps", 2, *shrunk)
    assert done.returncode == 0, done.stderr
    packed = pgolf(
        "pack", folder / "run/checkpoint.safetensors", "--recipe", "pr162", "-o", folder / "out", "--eval-only"
    )
    assert packed.returncode == 0, packed.stderr
    return folder, json.loads(said.stdout)


def stated(folder):
    return int(stated_bytes(find_shards(folder / "data", "val"))[1:].astype(np.int64).sum())


def packed_script(folder, data):
    command = [sys.executable, folder / "out/train_gpt.py", "--eval", "--data", data, "--stride", "16"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_every_score_is_over_the_bytes_of_the_sidecar(made, pgolf):
    folder, said = made
    assert said["val"]["bytes"] == stated(folder)
    done = pgolf("verify", folder / "out", "--data", folder / "data", "--stride", 16, "--json")
    found = json.loads(done.stdout)
    score = found["scores"][0]
    assert (score["bytes"], found["failed"]) == (stated(folder), [])
    assert score["bpb"] == pytest.approx(score["nats"] / math.log(2) / stated(folder), rel=1e-12)
    proof = next(each for each in found["findings"] if each["rule"] == "text.bytes")
    assert proof["level"] == "pass"
    assert "stated by the sidecar = decoded text, CaseOps undone" in proof["message"]
    line = packed_script(folder, folder / "data").stdout
    assert int(re.search(r"bytes:(\d+)", line)[1]) == stated(folder)
    assert float(re.search(r"val_bpb:(\S+)", line)[1]) == pytest.approx(score["bpb"], abs=1e-6)
    log = (folder / "run/train.log").read_text()
    loss, bpb = [float(each) for each in re.findall(r"val_loss:(\S+) val_bpb:(\S+)", log)[-1]]
    targets = sum(len(stated_bytes([path])) for path in find_shards(folder / "data", "val")) - 1
    assert bpb == pytest.approx(loss * targets / math.log(2) / stated(folder), rel=1e-3)


def test_without_the_sidecar_nothing_is_scored(made, pgolf, tmp_path):
    folder, _ = made
    shutil.copytree(folder / "data", tmp_path / "data")
    for path in (tmp_path / "data").glob("*_bytes_*"):
        path.unlink()
    reason = "is an operator of a transform (CaseOps), which is no text; put the sidecar"
    for arguments in (("verify", folder / "out"), ("train", "tiny", "-o", tmp_path / "run")):
        done = pgolf(*arguments, "--data", tmp_path / "data")
        assert (done.returncode, reason in done.stderr) == (3, True), done.stderr
    assert not (tmp_path / "run").exists()
    done = packed_script(folder, tmp_path / "data")
    assert (done.returncode, reason in done.stderr, done.stdout) == (3, True, "")


def test_training_on_the_held_out_shard_is_refused(made, pgolf, tmp_path):
    folder, _ = made
    shutil.copytree(folder / "data", tmp_path / "data")
    shutil.copy(tmp_path / "data/text_val_000000.bin", tmp_path / "data/text_train_000001.bin")
    done = pgolf("train", "tiny", "--data", tmp_path / "data", "-o", tmp_path / "run")
    assert done.returncode == 3
    assert re.search(r"text_val_000000\.bin: holds the same \d+ tokens as text_train_000001\.bin", done.stderr)
    assert not (tmp_path / "run").exists()


def test_a_sidecar_that_is_cut_is_refused_by_name(made, pgolf, tmp_path):
    folder, _ = made
    shutil.copytree(folder / "data", tmp_path / "data")
    path = tmp_path / "data/text_val_bytes_000000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    done = pgolf("verify", folder / "out", "--data", tmp_path / "data")
    assert done.returncode == 3
    assert "text_val_bytes_000000.bin: has" in done.stderr
