"""Byte models: proper distributions, agreement with plain counting, exact text from tokens."""

import lzma
import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import InputError
from codec.storage.token_shards import open_shard
from verify.scoring.ngram_baselines import ByteModel, bits_per_byte, decoded_documents, xz_bits_per_byte

TEXTS = st.lists(st.binary(max_size=60) | st.text("abc", max_size=60).map(str.encode), max_size=6)


def slow_bits(train, heldout, order):
    """Bits of heldout under the interpolated model, byte by byte with dictionaries."""
    seen = defaultdict(Counter)
    for document in train:
        for i, byte in enumerate(document):
            context = (b"\0\0\0" + document[:i])[-3:]
            for k in range(order + 1):
                seen[k, context[3 - k :]][byte] += 1
    bits = 0.0
    for document in heldout:
        for i, byte in enumerate(document):
            context, p = (b"\0\0\0" + document[:i])[-3:], 1 / 256
            for k in range(order + 1):
                counts = seen[k, context[3 - k :]]
                if counts:
                    p = (counts[byte] + len(counts) * p) / (counts.total() + len(counts))
            bits -= math.log2(p)
    return bits


@given(TEXTS, TEXTS)
def test_bits_agree_with_plain_counting(train, heldout):
    have = ByteModel.fit(train, 3).bits_by_order(heldout)
    assert have == pytest.approx([slow_bits(train, heldout, k) for k in range(4)], rel=1e-9, abs=1e-9)


@given(TEXTS, st.integers(0, 3), st.binary(max_size=5))
def test_every_context_has_a_distribution(train, order, context):
    model = ByteModel.fit(train, order)
    for start in (context, b"", *(d[: len(context)] for d in train)):
        p = model.probabilities(start)
        assert p.shape == (256,)
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert p.min() > 0


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4))
def test_document_bits_are_the_sum_over_its_next_byte_probabilities(documents):
    model = ByteModel.fit([b"abracadabra", *documents[:1]], 3)
    one_by_one = -sum(math.log2(model.probabilities(d[:i])[d[i]]) for d in documents for i in range(len(d)))
    assert model.bits_by_order(documents)[3] == pytest.approx(one_by_one)


def test_order_zero_of_independent_bytes_is_their_cross_entropy():
    draw = np.random.default_rng(1)
    p = np.array([0.5, 0.25, 0.125, 0.125])
    train, heldout = (bytes(draw.choice(list(b"abcd"), n, p=p).tolist()) for n in (400_000, 100_000))
    share = np.bincount(np.frombuffer(train, np.uint8), minlength=256)[list(b"abcd")] / len(train)
    seen = np.bincount(np.frombuffer(heldout, np.uint8), minlength=256)[list(b"abcd")] / len(heldout)
    scores = bits_per_byte([train], [heldout], orders=(0, 1, 2, 3))
    assert scores[0] == pytest.approx(-(seen * np.log2(share)).sum(), abs=1e-4)
    assert scores[0] == pytest.approx(1.75, abs=0.02)
    assert all(abs(scores[k] - scores[0]) < 0.01 for k in (1, 2, 3)), "context is no help where there is none"


def test_deterministic_sequence_costs_almost_nothing():
    text = b"abcdefgh" * 10_000
    scores = bits_per_byte([text], [text])
    assert all(score < 0.002 for score in scores.values())
    assert ByteModel.fit([text], 0).bits_by_order([text])[0] / len(text) == pytest.approx(3, abs=0.01)


def test_each_order_sees_exactly_its_context():
    """The next byte is the one k + 1 back: orders up to k see noise, order k + 1 sees all."""
    draw = random.Random(3)
    for k in range(3):
        text = bytearray(draw.choices(b"ab", k=k + 1))
        while len(text) < 40_000:
            text.append(text[-k - 1] if draw.random() < 0.99 else draw.choice(b"ab"))
        scores = bits_per_byte([bytes(text[:20_000])], [bytes(text[20_000:])], orders=(0, 1, 2, 3))
        assert all((scores[order] < 0.2) == (order > k) for order in range(4)), scores


def test_contexts_do_not_cross_documents():
    model = ByteModel.fit([b"ab"] * 100, 1)
    assert model.probabilities(b"b")[ord("a")] < 0.6  # never seen: only the share of "a" among all bytes
    assert model.probabilities(b"")[ord("a")] > 0.98


def test_xz_matches_the_library_and_beats_noise():
    noise = random.Random(1).randbytes(10_000)
    assert 8 < xz_bits_per_byte([noise]) < 8.2
    parts = [b"words and words"] * 50
    size = len(lzma.compress(b"\n".join(parts), preset=9))
    assert xz_bits_per_byte(parts) == 8 * size / sum(map(len, parts))


def test_nothing_held_out():
    for heldout in ([], [b""]):
        with pytest.raises(InputError, match="no held-out text"):
            bits_per_byte([b"abc"], heldout)
        with pytest.raises(InputError, match="no held-out text"):
            xz_bits_per_byte(heldout)


@pytest.mark.shared
def test_decoded_documents_are_the_text_of_the_challenge(shared):
    tokenizer = shared / "data/tokenizers/fineweb_1024_bpe.model"
    tokens = np.array(open_shard(shared / "data/tokens/fineweb_val_000000.head1M.sp1024.bin")[:100_000])
    documents = decoded_documents(tokens, tokenizer)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    starts = np.flatnonzero(tokens == 1)
    assert len(documents) == len(starts)
    for document, part in list(zip(documents, np.split(tokens, starts)[1:], strict=True))[:-1]:
        assert document.decode() == processor.decode(part.tolist())


@pytest.mark.shared
def test_decoded_documents_keep_half_a_character_and_a_first_part_without_bos(shared):
    tokenizer = shared / "data/tokenizers/fineweb_1024_bpe.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    snowman = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in "☃".encode()]
    space = processor.piece_to_id("\u2581")
    tokens = np.array([space, *snowman, 1, space, space, *snowman[:2]])
    assert decoded_documents(tokens, tokenizer) == ["☃".encode(), b" " + "☃".encode()[:2]]
    with pytest.raises(InputError, match="id 5000, the tokenizer has 1024"):
        decoded_documents(np.array([1, 5000]), tokenizer)
    with pytest.raises(InputError, match="SentencePiece"):
        decoded_documents(tokens, shared / "data/SOURCES.md")
