# ruff: noqa: F401, F811 (fixtures of tests/verify are imported by name)
import json
import re
import shutil

import numpy as np
import pytest

from codec.checkpoint import write_checkpoint
from pgolf.__main__ import main
from tests.verify.conftest import (
    BIGRAM,
    bigram_nats,
    data,
    heldout,
    table,
    train_tokenizer,
    write_submission,
)

FAST = ("--threads", "1", "--stride", "4")


@pytest.fixture
def command(data, capsys):
    """Run `pgolf verify` in this process -> (exit code, stdout, stderr)."""

    def run(*arguments, folder=None):
        code = main(["verify", *map(str, arguments), "--data", str(folder or data), *FAST])
        return code, *capsys.readouterr()

    return run


def test_json_has_the_documented_keys(command, write_submission, heldout, bigram_nats, table, tmp_path):
    write_checkpoint(tmp_path / "float.safetensors", {"table": table}, {})
    code, out, err = command(write_submission(), "--json", "--checkpoint", tmp_path / "float.safetensors")
    found = json.loads(out)
    assert (code, err, found["verdict"], found["partial"]) == (0, "", "pass", False)
    assert set(found["findings"][0]) == {"rule", "level", "message", "evidence"}
    assert set(found["bytes"]) == {
        "main_file",
        "import_closure",
        "all_code",
        "computed_wrapped",
        "artifact",
        "judged_total",
        "cap",
    }
    assert {"scorer", "nats", "tokens", "bytes", "loss", "bpb", "seconds"} <= set(found["scores"][0])
    assert found["scores"][0]["nats"] == pytest.approx(bigram_nats, rel=1e-6)
    assert found["float_bpb"] == found["scores"][0]["bpb"]
    assert found["seq_len"] == 16


def test_the_table_ends_with_the_verdict(command, write_submission):
    code, out, _ = command(write_submission(), "--limit-tokens", 40)
    lines = out.strip().splitlines()
    assert code == 0
    assert lines[-1] == "verdict: pass"
    assert re.fullmatch(r"PARTIAL SCORE: the first 40 of \d+ targets", lines[-2])
    assert re.search(r"^pass +bytes\.cap ", out, re.MULTILINE)


def test_over_the_cap_exits_1(command, write_submission):
    code, out, _ = command(write_submission(), "--cap", 1000)
    assert code == 1
    assert re.search(r"fail +bytes\.cap .* too many", out)
    assert out.strip().endswith("verdict: fail")


def test_seq_len_overrides_the_artifact(command, write_submission):
    folder = write_submission(meta={})
    code, _, err = command(folder)
    assert code == 3
    assert "does not state config.seq_len; pass --seq-len N" in err
    code, out, _ = command(folder, "--seq-len", 8, "--json")
    assert (code, json.loads(out)["seq_len"]) == (0, 8)


def damaged(change):
    def apply(folder, data):
        path = folder / "model.bin"
        path.write_bytes(change(path.read_bytes()))

    return apply


def other_tokenizer(folder, data):
    (data / "small.model").unlink()
    train_tokenizer(data / "small.model", ("cat dog mat",) * 5, vocab_size=272)


def shard(change):
    def apply(folder, data):
        path = data / "text_val_000000.bin"
        path.write_bytes(change(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damaged(lambda blob: blob[:-5]), "model.bin: "),
        (damaged(lambda blob: blob[:200] + bytes([blob[200] ^ 1]) + blob[201:]), "model.bin: "),
        (damaged(lambda blob: b""), "is empty"),
        (lambda folder, data: (folder / "model.bin").unlink(), "no such file"),
        (lambda folder, data: (folder / "train_gpt.py").unlink(), "not a submission folder"),
        (lambda folder, data: (data / "small.model").write_bytes(b""), "not a SentencePiece model"),
        (other_tokenizer, "the tokenizer has 272 pieces"),
        (shard(lambda raw: raw[:-2]), "cut or damaged"),
        (shard(lambda raw: b"\1" + raw[1:]), "magic"),
        (shard(lambda raw: b""), "0 bytes"),
        (lambda folder, data: shutil.rmtree(data), "no such data folder"),
    ],
)
def test_bad_inputs_are_one_sentence_and_exit_3(command, write_submission, data, tmp_path, damage, words):
    copy = shutil.copytree(data, tmp_path / "data")
    folder = write_submission()
    damage(folder, copy)
    code, out, err = command(folder, folder=copy)
    assert (code, out) == (3, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert words in err


def test_usage_errors_exit_2(command, write_submission, capsys):
    assert command(write_submission(), "--limit-tokens", 0)[0] == 2
    assert main(["verify", str(write_submission()), *FAST]) == 2
    assert "--data is missing" in capsys.readouterr().err
    assert main(["verify", str(write_submission()), "--stride", "17", "--data", "."]) == 2
    assert "stride 17 with windows of 16" in capsys.readouterr().err


def test_a_failing_script_exits_3_with_json_error(command, write_submission):
    code, out, _ = command(write_submission("def load(path, device):\n    raise ValueError('no')\n"), "--json")
    error = json.loads(out)
    assert (code, error["exit_code"]) == (3, 3)
    assert "ValueError: no" in error["error"]["message"]


def test_nan_weights_are_named(command, write_submission, table):
    code, _, err = command(write_submission(tensors={"table": np.full_like(table, np.nan)}))
    assert code == 3
    assert "not finite" in err


def test_help_shows_an_example(pgolf):
    result = pgolf("verify", "--help")
    assert result.returncode == 0
    assert "pgolf verify out/demo/submission --data" in result.stdout
