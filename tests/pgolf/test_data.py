"""`pgolf data` from the outside: the folder, the numbers printed, one sentence per mistake."""

import json
import random

import pytest

WORDS = ["sun", "moon", "star", "sky", "tree", "leaf", "root", "sea", "wave", "sand", "wind", "rain", "snow", "fire"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    draw = random.Random(5)
    stories = [f"Story {i}. " + " ".join(draw.choices(WORDS, k=60)) for i in range(80)]
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": s}) + "\n" for s in [*stories, stories[0]]))
    (folder / "val.txt").write_text("<|endoftext|>".join([stories[3], "Another story. " + stories[4][::-1]]))
    return folder


def test_folder_and_json(pgolf_process, texts, tmp_path):
    done = pgolf_process("data", texts / "train.jsonl", "--vocab-size", 320, "-o", tmp_path / "data", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["train"]["documents"] + summary["val"]["documents"] == 80
    assert (summary["duplicates_dropped"], summary["vocab_size"]) == (1, 320)
    for split in ("train", "val"):
        size = (tmp_path / f"data/text_{split}_000000.bin").stat().st_size
        assert size == 1024 + 2 * summary[split]["tokens"]


def test_table_with_given_heldout_documents(pgolf, texts, tmp_path):
    done = pgolf("data", texts / "train.jsonl", "--val", texts / "val.txt", "--vocab-size", 320, "-o", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[2:4]}
    assert (rows["train"][0], rows["val"][0]) == ("79", "2")
    tokens, size, ratio = (float(cell.replace(",", "")) for cell in rows["train"][1:])
    assert ratio == pytest.approx(size / tokens, abs=0.001)
    assert "1 training documents that are held out" in done.stdout
    again = pgolf("data", texts / "train.jsonl", "--tokenizer", tmp_path / "d/tokenizer.model", "-o", tmp_path / "d")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["{t}/none.txt"], 3, "none.txt: no such file"),
        (["{t}"], 3, "cannot be read"),
        ([], 2, "no text was given"),
        (["{t}/train.jsonl", "--embedded"], 2, "both given"),
        (["{t}/train.jsonl", "--val-fraction", "2"], 2, "between 0 and 1"),
        (["{t}/train.jsonl", "--val-fraction", "0.1", "--val", "{t}/val.txt"], 2, "exclude each other"),
        (["{t}/train.jsonl", "--vocab-size", "300", "--tokenizer", "x.model"], 2, "exclude each other"),
        (["{t}/train.jsonl", "--vocab-size", "30000"], 2, "too large"),
        (["{t}/train.jsonl", "--tokenizer", "{t}/val.txt"], 3, "not a SentencePiece model"),
    ],
)
def test_mistakes(pgolf, texts, tmp_path, arguments, exit_code, words):
    arguments = [a.format(t=texts) for a in arguments]
    done = pgolf("data", *arguments, "-o", tmp_path / "data", "--json")
    assert done.returncode == exit_code, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert json.loads(done.stdout)["exit_code"] == exit_code
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example(pgolf):
    done = pgolf("data", "--help")
    assert "pgolf data books.txt pages.jsonl --vocab-size 1024 -o data" in done.stdout
