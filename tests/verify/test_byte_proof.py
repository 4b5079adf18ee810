"""The proof of the bytes: tables against decoded text, sidecars against text with CaseOps undone, and doubts."""

import json
import time

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import InputError
from codec.storage.token_shards import find_shards, find_tokenizer, open_shard, shard_bytes
from tests.verify.conftest import train_tokenizer
from trainer.data.caseops import MARKS, to_caseops
from trainer.data.dataset import build_dataset
from verify.scoring.byte_proof import prove, prove_stated
from verify.scoring.heldout import HeldOut
from verify.scoring.validation import Validation

TEXTS = [f"The Cat number {i} of NASA sat on McDonald's mat; it was 10 past TEN in Café {i % 7}." for i in range(40)]
RESERVED = "fineweb_8192_bpe_lossless_caps_caseops_v1_reserved.model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CaseOps folder of two validation shards, by `pgolf data`."""
    folder = tmp_path_factory.mktemp("caseops")
    train_tokenizer(folder / "marks.model", map(to_caseops, TEXTS), vocab_size=330, user_defined_symbols=list(MARKS))
    build_dataset(TEXTS, folder / "data", tokenizer=folder / "marks.model", val_fraction=0.4, shard_tokens=600)
    return folder / "data"


def files(folder):
    return find_shards(folder, "val"), find_tokenizer(folder)


def copied(folder, to):
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def sidecars(folder, change):
    """Rewrite the sidecars: change, uint16 (n,) -> (n,)."""
    for path in folder.glob("*_val_bytes_*.bin"):
        path.write_bytes(shard_bytes(change(np.array(open_shard(path)))))


def texts_of(folder):
    """The held-out documents, from the decoded tokens and the corpus."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(find_tokenizer(folder)))
    ids = np.concatenate([open_shard(path) for path in find_shards(folder, "val")])
    small = [model.decode(part[1:].tolist()) for part in np.split(ids, np.flatnonzero(ids == 1))[1:]]
    plain = {text.lower(): text for text in TEXTS}
    return [plain["".join(char for char in text if char not in MARKS)] for text in small]


def test_a_caseops_folder_counts_the_bytes_of_its_text(folder):
    shards, tokenizer = files(folder)
    need = sum(len(text.encode()) for text in texts_of(folder))
    heldout = HeldOut.read(shards, tokenizer)
    assert len(shards) > 1
    assert (heldout.proof["bytes"], heldout.proof["differing"], heldout.unproven) == (need, 0, "")
    assert heldout.token_bytes.sum() == need
    validation = Validation.read(shards, tokenizer)
    assert validation.token_bytes.tolist() == heldout.token_bytes.tolist()
    stated = np.concatenate([open_shard(path) for path in sorted(folder.glob("*_val_bytes_*.bin"))])
    assert heldout.token_bytes.tolist() == stated[1:].tolist(), "entry p belongs to the target p + 1"


@pytest.mark.parametrize("limit", [1, 100, 101, 10**6])
def test_some_targets_count_their_own_bytes(folder, limit):
    shards, tokenizer = files(folder)
    whole, part = HeldOut.read(shards, tokenizer), HeldOut.read(shards, tokenizer, limit)
    assert part.token_bytes.tolist() == whole.token_bytes[:limit].tolist()
    assert (part.proof["bytes"], part.unproven) == (part.token_bytes.sum(), "")
    assert Validation.read(shards, tokenizer, limit).token_bytes.tolist() == part.token_bytes.tolist()


@pytest.mark.parametrize("read", [HeldOut.read, Validation.read])
def test_without_its_sidecar_it_is_refused(folder, tmp_path, read):
    shards, tokenizer = files(copied(folder, tmp_path / "data"))
    for path in shards[0].parent.glob("*_val_bytes_*.bin"):
        path.unlink()
    with pytest.raises(InputError, match=r"token \d+ is an operator of a transform \(CaseOps\), .* put the sidecar"):
        read(shards, tokenizer)


def test_a_sidecar_of_other_text_is_refused(folder, tmp_path):
    other = copied(folder, tmp_path / "data")
    sidecars(other, lambda stated: stated + (stated > 0))
    with pytest.raises(InputError, match=r"val_000000\.bin.*the sidecar states \d+ bytes, the text has \d+ when Cas"):
        HeldOut.read(*files(other))


def test_a_document_that_was_normalised_leaves_it_unknown(folder, tmp_path):
    """The field's sidecars state the text before NFKC, so one sum may differ and no one can say by how much."""
    other = copied(folder, tmp_path / "data")
    before = HeldOut.read(*files(other)).proof["bytes"]
    sidecars(other, lambda stated: np.append(stated[:-1], stated[-1] + 1))
    heldout = HeldOut.read(*files(other))
    assert heldout.proof["bytes"] == before + len(find_shards(other, "val"))
    assert f"in {len(find_shards(other, 'val'))} of" in heldout.unproven


def test_a_limit_inside_a_document_proves_the_whole_of_it(folder, tmp_path):
    """Which of two tokens a byte is counted with is the export's choice; the sum of their document is not."""
    other = copied(folder, tmp_path / "data")

    def moved(stated):
        first, last = np.flatnonzero(stated)[[0, 12]]
        stated[[first, last]] += np.array([1, -1], np.int64).astype(np.uint16)
        return stated

    sidecars(other, moved)
    for limit in (None, 8):
        heldout = HeldOut.read(*files(other), limit)
        assert (heldout.proof["differing"], heldout.unproven) == (0, "")
    assert heldout.proof["bytes"] == HeldOut.read(*files(folder), 8).proof["bytes"] + 1


def test_marks_in_the_text_itself_are_text(folder):
    """Escaped they count their three bytes each."""
    tokenizer = find_tokenizer(folder)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    text = f"The {MARKS[1]} Cat {MARKS[3]}{MARKS[0]}"
    ids = model.encode(to_caseops(text))
    stated = [0 if i in {model.piece_to_id(mark) for mark in MARKS} else len(model.decode([i]).encode()) for i in ids]
    text_bytes = len(text.encode())
    stated[-1] += text_bytes - sum(stated)  # only the sum is proven
    proof = prove_stated(np.array([1, *ids]), np.array([0, *stated]), tokenizer)
    assert (proof["text_bytes"], proof["bytes"], proof["differing"]) == (text_bytes, text_bytes, 0)


def test_the_shared_folder_counts_what_its_sidecar_states(shared):
    tokenizer = shared / "data/tokenizers" / RESERVED
    shards = find_shards(shared / "cases/caseops", "val")
    heldout = HeldOut.read(shards, tokenizer)
    stated = open_shard(shared / "cases/caseops/fineweb_val_bytes_000000.bin")
    assert (heldout.proof["bytes"], heldout.unproven) == (int(stated[1:].astype(int).sum()), "")
    assert Validation.read(shards, tokenizer).token_bytes.sum() == 104_361


def test_a_sidecar_beside_plain_text(data, heldout, tmp_path):
    """Where it agrees it is proven; where not, the transform is not known and the sidecar counts."""
    tokens = open_shard(data / "text_val_000000.bin")
    (tmp_path / "t_val_0.bin").write_bytes(shard_bytes(tokens))
    for more, level in ((0, ""), (1, "the inverse of its transform is not known")):
        stated = np.append(0, heldout.token_bytes + more * (heldout.token_bytes > 0))
        (tmp_path / "t_val_bytes_0.bin").write_bytes(shard_bytes(stated))
        found = HeldOut.read([tmp_path / "t_val_0.bin"], data / "small.model")
        assert found.proof["bytes"] == stated.sum()
        assert level in found.unproven
        assert bool(found.unproven) is bool(more)
        assert not more or "hold the sidecar's sum against the bytes of the text before tokenizing" in found.unproven


@pytest.mark.parametrize("name", ["sp_caseops_v1.model", "sp300_casefold.model", "lossless_caps.model"])
def test_a_name_is_a_sign_of_a_transform(data, tmp_path, name):
    (tmp_path / name).write_bytes((data / "small.model").read_bytes())
    heldout = HeldOut.read([data / "text_val_000000.bin"], tmp_path / name)
    assert heldout.unproven.startswith(f"a guess: text of `{name}` went through a transform")


def test_a_piece_defined_by_hand_is_a_sign_of_a_transform(tmp_path):
    """`<up>` marks capitals; a line end or a word are what others define."""
    path = train_tokenizer(tmp_path / "up.model", user_defined_symbols=["<up>", "\n", "cat"])
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text, unproven in (("<up>the cat <up>sat", True), ("the cat\n sat", False)):
        (tmp_path / "t_val_0.bin").write_bytes(shard_bytes(np.array([1, *model.encode(text)])))
        found = HeldOut.read([tmp_path / "t_val_0.bin"], path).unproven
        assert bool(found) is unproven
        assert ("a guess: `<up>`, defined by hand" in found and "stand 2 times" in found) is unproven


def test_a_private_character_learned_from_text_is_text(tmp_path):
    """Icon fonts use them; only pieces defined by hand are operators."""
    path = train_tokenizer(tmp_path / "icons.model", ["menu \uf0c9 menu \uf0c9 the \uf0c9"] * 20)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokens = np.array([1, *model.encode("the \uf0c9 menu")])
    assert any("\uf0c9" in model.id_to_piece(int(i)) for i in tokens)
    assert prove(tokens, path)["bytes"] == len("the \uf0c9 menu".encode())


@pytest.mark.parametrize("dummy", [False, True])
@pytest.mark.parametrize("extra", [False, True])
def test_spaces_at_the_start_are_counted_as_they_are_decoded(tmp_path, dummy, extra):
    path = train_tokenizer(tmp_path / "x.model", add_dummy_prefix=dummy, remove_extra_whitespaces=extra)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    texts = ["the cat", " the cat", "  the  cat ", "cat"]
    tokens = np.array([i for text in texts for i in [1, *model.encode(text)]])
    assert prove(tokens, path)["bytes"] == sum(len(model.decode(model.encode(text)).encode()) for text in texts)


def test_a_sidecar_of_half_a_document(folder):
    """A stream that starts inside a document and ends in one."""
    shards, tokenizer = files(folder)
    tokens, stated = open_shard(shards[0])[5:300], np.full(295, 2)
    with pytest.raises(InputError, match="the sidecar states 588 bytes"):
        prove_stated(tokens, stated, tokenizer)


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
