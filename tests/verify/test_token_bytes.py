import hashlib
import json
import time

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import InputError
from codec.storage.token_shards import open_shard
from tests.verify.conftest import train_tokenizer
from verify.scoring.byte_proof import prove
from verify.scoring.token_bytes import TokenBytes


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "data/golden/bytes.json").read_text())


@pytest.fixture(scope="module")
def sp8192(shared, golden):
    path = shared / "data/tokenizers/fineweb_8192_bpe.record20260324.model"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == golden["tokenizer_sha256"]
    return path


def test_table_equals_the_original_scripts(golden, sp8192):
    table = TokenBytes.from_tokenizer(sp8192)
    for ours, dtype, name in (
        (table.length, "<i2", "base_bytes"),
        (table.spaced, "?", "has_leading_space"),
        (table.boundary, "?", "is_boundary"),
    ):
        stored = golden["luts"][name]
        digest = stored.get("sha256") or stored["sha256_little_endian"]
        assert hashlib.sha256(ours.astype(dtype).tobytes()).hexdigest() == digest, name


def test_counts_equal_the_original_scripts(golden, sp8192):
    table, ordinary = TokenBytes.from_tokenizer(sp8192), golden["ordinary_prev_id"]
    assert len(golden["snippets"]) == 200
    for text in golden["snippets"]:
        assert table.of(np.array([1, *text["ids"]])).sum() == text["bytes_prev_bos"]
        assert table.of(np.array([ordinary, *text["ids"]])).sum() == text["bytes_prev_ordinary_token"]
    everything = np.array([i for text in golden["snippets"] for i in [1, *text["ids"]]])
    decoded = sum(len(text["decoded"].encode()) for text in golden["snippets"])
    assert prove(everything, sp8192)["bytes"] == decoded
    joined = np.array([i for text in golden["snippets"][:60] for i in [1, *text["ids"]]])
    assert table.of(joined).dtype == np.int64
    assert prove(joined, sp8192) == {"documents": 60, "tokens": 439, "bytes": 610, "not_utf8": 0}


def test_a_million_tokens_of_the_validation_set_in_seconds(shared):
    tokens = open_shard(shared / "data/tokens/fineweb_val_000000.head1M.sp1024.bin")
    started = time.process_time()
    proof = prove(tokens, shared / "data/tokenizers/fineweb_1024_bpe.model")
    assert time.process_time() - started < 5
    assert proof == {"documents": 902, "tokens": 1_040_297, "bytes": 2_504_867, "not_utf8": 0}
    lines = (shared / "data/text/fineweb_val_head.jsonl").read_text().splitlines()
    whole = tokens[: np.flatnonzero(tokens == 1)[-1]]  # without the last document, which is cut
    assert prove(whole, shared / "data/tokenizers/fineweb_1024_bpe.model")["bytes"] == sum(
        len(json.loads(line)["text"].encode()) for line in lines
    )


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=5))
def test_any_text_counts_the_bytes_of_its_decoding(data, texts):
    model = sentencepiece.SentencePieceProcessor(model_file=str(data / "small.model"))
    tokens = np.array([i for text in texts for i in [1, *model.encode(text)]])
    decoded = sum(len(model.decode(model.encode(text)).encode()) for text in texts)
    assert prove(tokens, data / "small.model")["bytes"] == decoded


def test_a_stream_that_starts_inside_a_document(data):
    model = sentencepiece.SentencePieceProcessor(model_file=str(data / "small.model"))
    ids = model.encode("the cat sat on the mat")
    expected = len("the cat sat on the mat") - len(model.decode(ids[:1]))
    assert prove(np.array(ids), data / "small.model")["bytes"] == expected


def test_a_character_cut_at_the_end_counts_its_bytes(data):
    model = sentencepiece.SentencePieceProcessor(model_file=str(data / "small.model"))
    ids = [1, *model.encode("tea 茶")][:-1]
    assert prove(np.array(ids), data / "small.model") == {
        "documents": 1,
        "tokens": len(ids) - 1,
        "bytes": len("tea 茶".encode()) - 1,
        "not_utf8": 1,
    }


def test_a_vocabulary_without_a_space_piece_is_refused(tmp_path):
    """Its space is spelt E2 96 81, three byte pieces for one byte of text."""
    words = ("cat", "dog", "catalogue", "doggerel") * 5
    path = train_tokenizer(tmp_path / "no_space.model", words, required_chars="", vocab_size=275)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert model.piece_to_id("\u2581") == model.unk_id()
    assert model.decode(model.encode("dog cat")) in ("dog cat", "dog\u2581cat")
    with pytest.raises(InputError, match="document 1 counts 9 bytes, its text has 7"):
        prove(np.array([1, *model.encode("cat"), 1, *model.encode("dog cat")]), path)


def test_streams_that_cannot_be_counted_are_refused(data):
    path = data / "small.model"
    with pytest.raises(InputError, match="token 2 is the unknown token"):
        prove(np.array([1, 70, 3]), path)
    with pytest.raises(InputError, match=r"span 1 to 9999, the tokenizer has \d+ pieces"):
        prove(np.array([1, 70, 9999]), path)
    space_after_eos = sentencepiece.SentencePieceProcessor(model_file=str(path)).piece_to_id("\u2581")
    with pytest.raises(InputError, match="document 0 counts"):
        prove(np.array([1, 70, 2, space_after_eos, 70]), path)


@pytest.mark.parametrize("content", [b"", b"junk" * 50])
def test_files_that_are_no_tokenizer(tmp_path, content):
    (tmp_path / "x.model").write_bytes(content)
    with pytest.raises(InputError, match="not a SentencePiece model"):
        TokenBytes.from_tokenizer(tmp_path / "x.model")
    with pytest.raises(InputError, match="cannot be read"):
        TokenBytes.from_tokenizer(tmp_path / "missing.model")
    with pytest.raises(InputError, match="no control token at id 1"):
        TokenBytes.from_tokenizer(train_tokenizer(tmp_path / "y.model", bos_id=-1, pad_id=0, unk_id=1, eos_id=2))
