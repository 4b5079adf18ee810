# ruff: noqa: F401, F811 (fixtures of tests/verify are imported by name)
"""Shards and tokenizers that do not belong together: every number would be meaningless, so every command refuses."""

import hashlib
import json
import shutil

import pytest

from pgolf.__main__ import main
from pgolf.data_origin import check_origin
from tests.verify.conftest import data, heldout, table, train_tokenizer, write_submission
from trainer.data.dataset import build_dataset

WORDS = ("the cat sat on the mat", "the dog and the cat ran", "a cow and a calf are near")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Data folders `ours` and `other`, equal but for their tokenizers, which have 300 pieces each."""
    folder = tmp_path_factory.mktemp("sets")
    documents = [f"{text} {number}" * 9 for number in range(30) for text in WORDS]
    build_dataset(documents, folder / "ours", vocab_size=300, val_fraction=0.2)
    build_dataset(documents[::2] + ["zebra quiz ox"] * 9, folder / "other", vocab_size=300, val_fraction=0.2)
    return folder


def refused(capsys, *arguments):
    code = main([*map(str, arguments)])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (3, "", 1), err
    return err


def test_train_refuses_shards_of_another_tokenizer(sets, tmp_path, capsys):
    ours, other = sets / "ours", sets / "other"
    run = ("train", "tiny", "--steps", 1, "--limit-tokens", 50, "-o", tmp_path / "run", "--data", ours)
    sentence = refused(capsys, *run, "--tokenizer", other / "tokenizer.model")
    assert f"{ours / 'text_train_000000.bin'}: was made with the tokenizer of sha256 " in sentence
    sentence = refused(capsys, *run, "--val", other / "text_val_000000.bin")
    assert f"{other / 'text_val_000000.bin'}: was made with" in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["verify", "audit"])
def test_a_submission_is_not_scored_on_tokens_of_another_tokenizer(sets, write_submission, tmp_path, capsys, command):
    trained = hashlib.sha256((sets / "ours" / "tokenizer.model").read_bytes()).hexdigest()
    folder = write_submission(meta={"config": {"seq_len": 16}, "tokenizer_sha256": trained})
    quick = ("--targets", 32, "--cuts", 4, "--coded", 4) if command == "audit" else ("--limit-tokens", 40)
    sentence = refused(capsys, command, folder, *quick, "--data", sets / "other")
    assert f"the model was trained with tokenizer {trained[:12]}" in sentence
    mixed = shutil.copytree(sets / "other", tmp_path / "mixed")
    shutil.copy(sets / "ours" / "tokenizer.model", mixed / "tokenizer.model")
    assert "text_val_000000.bin: was made with the tokenizer" in refused(
        capsys, command, folder, *quick, "--data", mixed
    )
    if command == "verify":
        val = sets / "other" / "text_val_000000.bin"
        assert f"{val}: was made with" in refused(capsys, "verify", folder, "--data", sets / "ours", "--val", val)


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"tokenizer_sha256": 7}', b"\xff\xfe", b""])
def test_a_summary_that_says_nothing_is_no_hindrance(tmp_path, content):
    """data.json is a name that others use too."""
    (tmp_path / "data.json").write_bytes(content)
    check_origin([tmp_path / "text_val_000000.bin"], "0" * 64)


def test_verify_reads_the_summary_like_that(data, write_submission, tmp_path, capsys):
    copy = shutil.copytree(data, tmp_path / "data")
    (copy / "data.json").write_bytes(b"\xff\xfe")
    quick = ("--limit-tokens", 40, "--threads", 1, "--json")
    assert main([*map(str, ("verify", write_submission(), "--data", copy, *quick))]) == 0
    assert json.loads(capsys.readouterr().out)["stride"] == 16  # 64 do not fit windows of 16


def test_verify_without_the_gpu_it_was_told_to_use(write_submission, data, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([*map(str, ("verify", write_submission(), "--data", data, "--device", "cuda"))]) == 4
    assert capsys.readouterr().err == "Error: no CUDA device is available to torch; use --device cpu\n"
