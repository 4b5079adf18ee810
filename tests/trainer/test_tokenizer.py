"""The tokenizer: same text, same bytes; a space is its own piece; every byte can be written."""

import io
import re
import unicodedata

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import InputError, UsageError
from trainer.data.tokenizer import load_tokenizer, train_tokenizer

TEXT = [f"The quick brown fox number {i} jumps over {i * 7} lazy dogs; then it sleeps, ok?" * 3 for i in range(60)]
LONG = ["Zebra quagga okapi. " * 2000]  # 40 KB in one document: beyond SentencePiece's default sentence limit


@pytest.fixture(scope="module")
def model():
    return train_tokenizer(TEXT + LONG, 400)


@pytest.fixture(scope="module")
def processor(model):
    return load_tokenizer(model, "test")


def test_same_text_gives_the_same_bytes_in_any_order(model):
    assert train_tokenizer(reversed(TEXT + LONG), 400) == model
    assert train_tokenizer([*TEXT, "Something else entirely. " * 20], 400) != model


def test_pieces_and_ids(processor):
    assert processor.vocab_size() == 400
    assert [processor.id_to_piece(i) for i in range(4)] == ["<pad>", "<s>", "</s>", "<unk>"]
    assert not processor.is_unknown(processor.piece_to_id("\u2581"))
    assert not any(
        any(c.isdigit() for c in piece) and len(piece.lstrip("\u2581")) > 1
        for piece in map(processor.id_to_piece, range(260, 400))
    )
    assert processor.encode("fox")[0] == processor.piece_to_id(processor.encode("fox", out_type=str)[0])
    assert not processor.encode("fox", out_type=str)[0].startswith("\u2581")


def test_long_documents_are_learned_from(processor):
    assert processor.encode("7 quagga", out_type=str) == ["7", "\u2581quagga"]


def test_a_space_has_its_piece_even_when_the_text_has_none():
    processor = load_tokenizer(train_tokenizer(["aaaabbbb"] * 5, 265), "test")
    assert processor.encode("a b", out_type=str)[1] == "\u2581"


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Cn", "Co", "Zs", "Zl", "Zp", "Mn"]), max_size=40))
def test_any_text_survives(processor, text):
    text = unicodedata.normalize("NFKC", text).replace("\u2581", "_")
    expected = processor.normalize(text).replace("\u2581", " ")
    assert processor.decode(processor.encode(text)) == expected
    assert processor.unk_id() not in processor.encode(text)


@pytest.mark.parametrize(
    ("size", "message", "hint"),
    [
        (5000, "5000 is too large", "--vocab-size"),
        (261, "261 is too small", "--vocab-size"),
        (70_000, "shards hold 65536", "65536"),
    ],
)
def test_impossible_sizes_say_what_is_possible(size, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        train_tokenizer(["some few words of text, nothing more"], size)
    assert hint in caught.value.hint


def test_a_small_text_may_yield_fewer():
    words = ["some few words of text, nothing more"]
    with pytest.raises(UsageError) as caught:
        train_tokenizer(words, 5000)
    most = int(re.search(r"yields (\d+) pieces", caught.value.message)[1])
    assert train_tokenizer(words, 5000, or_fewer=True) == train_tokenizer(words, most)


def test_the_hinted_size_works():
    words = ["some few words of text, nothing more"]
    for size in (5000, 261):
        with pytest.raises(UsageError) as caught:
            train_tokenizer(words, size)
        possible = int(caught.value.hint.split()[2])
        assert load_tokenizer(train_tokenizer(words, possible), "").vocab_size() == possible


def test_text_that_normalises_to_nothing():
    with pytest.raises(InputError, match="cannot train"):
        train_tokenizer(["\u200b \ufeff"], 300)


def foreign(**options):
    """A tokenizer trained with other settings than ours."""
    model = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 330,
        "byte_fallback": True,
        "pad_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "unk_id": 3,
        "minloglevel": 3,
        **options,
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT), model_writer=model, **settings)
    return model.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"byte_fallback": False, "vocab_size": 100}, "0 byte pieces"),
        ({"bos_id": 2, "eos_id": 1}, "BOS id 2"),
        ({"bos_id": -1, "eos_id": 1}, "BOS id -1"),
    ],
)
def test_tokenizers_that_cannot_be_counted_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_tokenizer(foreign(**options), "foreign.model")


def test_tokenizer_without_a_lone_space_is_refused():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["aaaabbbb"] * 5),
        model_writer=model,
        model_type="bpe",
        vocab_size=263,
        bos_id=1,
        unk_id=3,
        pad_id=0,
        eos_id=2,
        byte_fallback=True,
        add_dummy_prefix=False,
        minloglevel=3,
    )
    with pytest.raises(InputError, match="no piece \u2581"):
        load_tokenizer(model.getvalue(), "foreign.model")


@pytest.mark.parametrize("cut", [0.02, 0.5])
def test_damaged_models_are_refused(model, cut):
    with pytest.raises(InputError, match=r"not a SentencePiece model|byte pieces|BOS"):
        load_tokenizer(model[: int(len(model) * cut)], "cut.model")
    with pytest.raises(InputError, match=r"bad\.model"):
        load_tokenizer(b"hello world", "bad.model")
