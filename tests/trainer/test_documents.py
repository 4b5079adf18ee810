"""Documents: formats, errors, and a split that cannot leak."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import InputError, UsageError
from trainer.data.documents import content_hash, read_documents, split_by_hash, split_given

DOCUMENTS = st.lists(st.text(alphabet="abcé \n\u2028ﬁ", min_size=1).filter(str.strip), min_size=1, max_size=30)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_json_lines_keep_every_character(tmp_path):
    texts = ["one\ntwo", "line\u2028separator \u0085", "  é "]
    lines = "".join(json.dumps({"text": t, "id": 1}, ensure_ascii=False) + "\r\n" for t in texts)
    assert read_documents([write(tmp_path / "a.jsonl", lines + "\n \n")]) == texts


def test_separator_wins_over_blank_lines(tmp_path):
    path = write(tmp_path / "a.txt", "\ufeffOne.\n\nStill one.\n<|endoftext|>\nTwo.<|endoftext|>\n")
    assert read_documents([path]) == ["One.\n\nStill one.", "Two."]


def test_plain_text_is_grouped_by_paragraph_and_loses_none(tmp_path):
    paragraphs = [f"Paragraph {i} " + "word " * 60 + "\nsecond line." for i in range(60)]
    path = write(tmp_path / "a.txt", "\r\n\r\n".join(paragraphs).replace("\n", "\r\n").replace("\r\r", "\r"))
    documents = read_documents([path])
    assert " ".join(" ".join(documents).split()) == " ".join(" ".join(paragraphs).split())
    assert all(2000 <= len(d) < 2000 + 400 for d in documents[:-1])
    assert all(d.startswith("Paragraph ") and d.endswith("line.") for d in documents)


def test_text_without_blank_lines_is_cut_at_line_ends(tmp_path):
    documents = read_documents([write(tmp_path / "a.txt", "A line of text.\n" * 1000)])
    assert len(documents) > 5
    assert {line for d in documents for line in d.split("\n")} == {"A line of text."}


@pytest.mark.parametrize(
    ("name", "content", "message", "where"),
    [
        ("a.txt", "", "empty", "a.txt"),
        ("a.txt", " \n\n", "no text", "a.txt"),
        ("a.txt", b"fine\nnot \xff fine", "0xff on line 2", "a.txt"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "not JSON", "a.jsonl line 2"),
        ("a.jsonl", '{"text": "a"}\n\n{"body": "b"}\n', "fields body", "a.jsonl line 3"),
        ("a.jsonl", '{"text": 5}\n', "string field", "a.jsonl line 1"),
        ("a.json", '[{"text": "a"}]', "no object", "a.json line 1"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "surrogate", "a.jsonl line 1"),
        ("a.jsonl", "[" * 100_000, "not JSON", "a.jsonl line 1"),
        ("a.jsonl", '{"text": " "}\n', "no text", "a.jsonl"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message, where):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        read_documents([path])
    assert message in caught.value.message
    assert caught.value.where == str(tmp_path / where)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_documents([tmp_path / "none.txt"])


def test_equal_after_normalisation_is_the_same_document():
    assert content_hash("ﬁne  day\n") == content_hash("fine day")
    assert content_hash("Fine day") != content_hash("fine day")


@given(DOCUMENTS, st.floats(0.01, 0.99), st.randoms())
def test_split_is_disjoint_complete_and_blind_to_order(documents, fraction, random):
    distinct = {content_hash(d) for d in documents}
    if len(distinct) < 2:
        with pytest.raises(InputError, match="at least 2"):
            split_by_hash(documents, fraction)
        return
    split = split_by_hash(documents, fraction)
    train, heldout = ([content_hash(d) for d in part] for part in (split.train, split.heldout))
    assert train
    assert heldout
    assert sorted(train + heldout) == sorted(distinct)
    assert split.duplicates == len(documents) - len(distinct)
    shuffled = random.sample(documents, len(documents))
    again = split_by_hash(shuffled, fraction)
    assert {content_hash(d) for d in again.heldout} == set(heldout)
    assert [content_hash(d) for d in again.train] == train


def test_split_holds_out_the_share_asked_for_and_keeps_it_as_text_grows():
    documents = [f"document number {i}" for i in range(20_000)]
    heldout = set(split_by_hash(documents, 0.02).heldout)
    assert 300 < len(heldout) < 500  # 400 expected, standard deviation 20
    assert set(split_by_hash(documents[:5000], 0.02).heldout) == heldout & set(documents[:5000])
    assert heldout < set(split_by_hash(documents, 0.05).heldout)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_split_refuses_a_senseless_fraction(fraction):
    with pytest.raises(UsageError, match="between 0 and 1"):
        split_by_hash(["a", "b"], fraction)


def test_given_heldout_documents_leave_training():
    split = split_given(["a", "b", "b ", "c"], ["c\n", "d", "d"])
    assert sorted(split.train) == ["a", "b"]
    assert split.heldout == ("c\n", "d")
    assert (split.heldout_in_train, split.duplicates) == (1, 2)


def test_given_heldout_documents_must_leave_something():
    with pytest.raises(InputError, match="also held out"):
        split_given(["a"], ["a", "b"])
    with pytest.raises(InputError, match="no held-out"):
        split_given(["a"], [])
