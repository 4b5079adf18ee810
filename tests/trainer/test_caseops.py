"""CaseOps: the marked text, that it comes back, and the bytes that its tokens state."""

import re

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import InputError
from tests.verify.conftest import train_tokenizer
from trainer.data.caseops import MARKS, to_caseops
from trainer.data.piece_bytes import PieceBytes
from verify.scoring.byte_proof import CASEOPS, MARKED

ALPHABET = st.text(st.sampled_from([*"abzABZ é▁É1.\n", *MARKS]), max_size=30)


def undone(marked):
    """By its definition, another way than `to_caseops`."""
    out, mode = [], ""
    for char in re.findall("\ue004.|.", marked, re.DOTALL):
        if char in MARKS:
            mode = char
            continue
        letter = char.isascii() and char.isalpha()
        out.append(char.upper() if mode and letter else char.removeprefix("\ue004"))
        if mode != "\ue002" or not letter:
            mode = ""
    return "".join(out)


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("The NASA iPhone", "\ue001the \ue002nasa i\ue003phone"),
        ("McDonald A ABc", "\ue001mc\ue003donald \ue001a \ue001a\ue003bc"),
        ("Éa \ue002", "É" + "a \ue004\ue002"),
    ],
)
def test_words_get_their_marks(text, marked):
    assert to_caseops(text) == marked


@given(ALPHABET)
def test_any_text_comes_back(text):
    marked = to_caseops(text)
    assert undone(marked) == text
    assert not re.search("[A-Z]", marked)
    assert len(MARKED.sub(rb"\1", marked.encode())) == len(text.encode())
    assert MARKS == CASEOPS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("caseops") / "marks.model"
    train_tokenizer(path, ["the cat sat on the mat", "a dog and a cat"] * 5, user_defined_symbols=list(MARKS))
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


@given(ALPHABET)
def test_tokens_state_the_bytes_of_the_text(tokenizer, text):
    ids = tokenizer.encode(to_caseops(text))
    decoded = tokenizer.decode(ids)
    counts = PieceBytes(tokenizer, "marks.model").of(np.array(ids, np.uint16), decoded)
    assert counts.sum() == len(undone(decoded).encode())
    assert len(counts) == len(ids)


def test_other_tokenizers_mark_nothing(tmp_path):
    plain = sentencepiece.SentencePieceProcessor(model_file=str(train_tokenizer(tmp_path / "small.model")))
    assert PieceBytes(plain, "small.model").caseops is False


def test_a_tokenizer_whose_pieces_are_not_its_text_is_refused(tmp_path):
    path = train_tokenizer(tmp_path / "suffix.model", treat_whitespace_as_suffix=True, add_dummy_prefix=True)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ids = model.encode("the cat sat")
    with pytest.raises(InputError, match=r"suffix\.model: a document counts 12 bytes by its pieces, .* decodes 11"):
        PieceBytes(model, str(path)).of(np.array(ids), "the cat sat")
