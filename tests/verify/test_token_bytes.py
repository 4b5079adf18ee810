import hashlib
import json

import numpy as np
import pytest

from codec.errors import InputError
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


@pytest.mark.parametrize("content", [b"", b"junk" * 50])
def test_files_that_are_no_tokenizer(tmp_path, content):
    (tmp_path / "x.model").write_bytes(content)
    with pytest.raises(InputError, match="not a SentencePiece model"):
        TokenBytes.from_tokenizer(tmp_path / "x.model")
    with pytest.raises(InputError, match="cannot be read"):
        TokenBytes.from_tokenizer(tmp_path / "missing.model")
    with pytest.raises(InputError, match="no control token at id 1"):
        TokenBytes.from_tokenizer(train_tokenizer(tmp_path / "y.model", bos_id=-1, pad_id=0, unk_id=1, eos_id=2))
