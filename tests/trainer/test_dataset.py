"""The data folder: tokens against the challenge's own shard, whole documents, same input same bytes."""

import json
import random

import numpy as np
import pytest
import sentencepiece

from codec.errors import InputError, UsageError
from codec.storage.token_shards import find_shards, find_tokenizer, open_shard
from trainer.data.dataset import build_dataset
from trainer.data.documents import content_hash, read_documents
from trainer.data.tokenizer import train_tokenizer

WORDS = ["sun", "moon", "star", "sky", "tree", "leaf", "root", "sea", "wave", "sand", "wind", "rain", "snow", "fire"]


def story(seed):
    draw = random.Random(seed)
    return f"Story {seed}. " + " ".join(draw.choices(WORDS, k=80))


DOCUMENTS = [story(i) for i in range(120)]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def decoded(folder, split):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(find_tokenizer(folder)))
    texts = []
    for shard in find_shards(folder, split):
        ids = np.array(open_shard(shard))
        assert ids[0] == 1, "a shard starts with a whole document"
        assert not np.isin(ids, [0, 2, 3]).any(), "no padding, EOS or unknown"
        texts += [processor.decode(part.tolist()) for part in np.split(ids, np.flatnonzero(ids == 1))[1:]]
    return texts


def test_documents_come_back_whole(tmp_path):
    summary = build_dataset(DOCUMENTS, tmp_path / "data", vocab_size=320, val_fraction=0.1)
    train, val = decoded(tmp_path / "data", "train"), decoded(tmp_path / "data", "val")
    assert sorted(train + val) == sorted(DOCUMENTS)
    assert val == [d for d in DOCUMENTS if d in set(val)], "held-out documents keep their order"
    assert train == sorted(train, key=content_hash)
    assert (summary.train.documents, summary.val.documents) == (len(train), len(val))
    assert summary.train.bytes == sum(len(d.encode()) for d in train)
    assert summary.val.tokens == len(open_shard(tmp_path / "data/text_val_000000.bin"))
    assert json.loads((tmp_path / "data/data.json").read_text()) == summary.to_dict()


def test_small_shards_cut_between_documents(tmp_path):
    big = build_dataset(DOCUMENTS, tmp_path / "big", vocab_size=320)
    small = build_dataset(DOCUMENTS, tmp_path / "small", vocab_size=320, shard_tokens=1000)
    shards = find_shards(tmp_path / "small", "train")
    assert len(shards) == small.train.shards > 5
    assert all(len(open_shard(s)) <= 1000 for s in shards)
    joined = np.concatenate([open_shard(s) for s in shards])
    np.testing.assert_array_equal(joined, open_shard(tmp_path / "big/text_train_000000.bin"))
    assert small.train.tokens == big.train.tokens == len(joined)
    tiny = build_dataset(DOCUMENTS, tmp_path / "tiny", vocab_size=320, shard_tokens=1).train
    assert tiny.shards == tiny.documents == big.train.documents, "a document larger than a shard stays whole"


def test_same_input_same_bytes(tmp_path):
    for name in ("a", "b"):
        build_dataset(DOCUMENTS, tmp_path / name, vocab_size=320)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    build_dataset(DOCUMENTS[::-1], tmp_path / "reversed", vocab_size=320)
    changed = {n for n, content in files(tmp_path / "reversed").items() if content != files(tmp_path / "a")[n]}
    assert changed <= {"text_val_000000.bin"}, "training shards and tokenizer do not depend on reading order"


def test_tokenizer_never_sees_heldout_documents(tmp_path):
    secret = ["Xylophone zugzwang qoph. " * 50]
    build_dataset(DOCUMENTS, tmp_path / "a", vocab_size=320, heldout=secret)
    build_dataset(DOCUMENTS + secret, tmp_path / "b", vocab_size=320, heldout=secret)
    assert (tmp_path / "a/tokenizer.model").read_bytes() == train_tokenizer(DOCUMENTS, 320)
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a.pop("data.json") != b.pop("data.json")  # b counts the document it dropped
    assert a == b


def test_given_tokenizer_is_used_unchanged(tmp_path):
    build_dataset(DOCUMENTS, tmp_path / "a", vocab_size=320)
    model = tmp_path / "a/tokenizer.model"
    summary = build_dataset([d.upper() for d in DOCUMENTS], tmp_path / "b", tokenizer=model)
    assert (tmp_path / "b/tokenizer.model").read_bytes() == model.read_bytes()
    assert summary.vocab_size == 320


def test_documents_that_normalise_to_nothing_are_skipped(tmp_path):
    summary = build_dataset([*DOCUMENTS, "\u200b\ufeff"], tmp_path / "data", vocab_size=320)
    assert summary.train.documents + summary.val.documents == len(DOCUMENTS)
    with pytest.raises(InputError, match="val documents hold no text"):
        build_dataset(DOCUMENTS, tmp_path / "empty", vocab_size=320, heldout=["\u200b"])


def test_failure_leaves_nothing_and_foreign_folders_stay(tmp_path):
    with pytest.raises(UsageError, match="too large"):
        build_dataset(DOCUMENTS, tmp_path / "data", vocab_size=60_000)
    with pytest.raises(InputError, match="no such file"):
        build_dataset(DOCUMENTS, tmp_path / "data", tokenizer=tmp_path / "none.model")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="not an earlier output"):
        build_dataset(DOCUMENTS, tmp_path / "mine", vocab_size=320)
    assert (tmp_path / "mine/notes.txt").read_text() == "keep"


def test_progress_ends_at_one_hundred(tmp_path):
    reports = []
    build_dataset(DOCUMENTS, tmp_path / "data", vocab_size=320, progress=lambda done, note: reports.append(done))
    assert reports == sorted(reports)
    assert reports[-1] == 100


@pytest.mark.shared
@pytest.mark.parametrize(
    ("text", "tokens", "tokenizer", "count"),
    [
        ("fineweb_val_head.jsonl", "fineweb_val_000000.head1M.sp1024.bin", "fineweb_1024_bpe.model", 300),
        ("fineweb_train.jsonl", "fineweb_train_000000.sp4096.1M.bin", "fineweb_4096_bpe.model", 300),
    ],
)
def test_tokens_equal_the_challenge_shards(shared, tmp_path, text, tokens, tokenizer, count):
    heldout = read_documents([shared / "data/text" / text])[:count]
    build_dataset(DOCUMENTS, tmp_path / "data", heldout=heldout, tokenizer=shared / "data/tokenizers" / tokenizer)
    ours = open_shard(tmp_path / "data/text_val_000000.bin")
    official = open_shard(shared / "data/tokens" / tokens)
    assert len(ours) > 200_000
    np.testing.assert_array_equal(ours, official[: len(ours)])
    assert official[len(ours)] == 1, "the next official document starts where ours end"
