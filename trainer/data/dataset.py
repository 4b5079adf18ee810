"""A data folder: token shards of the training and the held-out documents, the tokenizer, and data.json."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from codec.errors import InputError
from codec.progress import Progress
from codec.storage.atomic_files import new_folder, read_bytes, write_bytes
from codec.storage.token_shards import shard_bytes
from trainer.data.caseops import to_caseops
from trainer.data.documents import Split, split_by_hash, split_given
from trainer.data.piece_bytes import PieceBytes
from trainer.data.tokenizer import BOS, load_tokenizer, train_tokenizer

TOKENIZER, SUMMARY = "tokenizer.model", "data.json"
BATCH = 256  # documents encoded at a time: bounds memory and paces the progress bar


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """Counts of one split.

    bytes: UTF-8 bytes of the decoded tokens, the text that bpb divides by (SentencePiece normalises: NFKC,
    white space collapsed), so it differs from the files' size.  tokens: one BOS per document included.
    """

    documents: int
    tokens: int
    bytes: int
    shards: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSummary:
    """What `build_dataset` wrote; the content of data.json."""

    train: SplitSummary
    val: SplitSummary
    vocab_size: int
    tokenizer_sha256: str
    duplicates_dropped: int
    heldout_dropped_from_train: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def build_dataset(
    documents: Sequence[str],
    out: str | Path,
    *,
    vocab_size: int = 1024,
    or_fewer: bool = False,
    tokenizer: str | Path | None = None,
    val_fraction: float = 0.02,
    heldout: Sequence[str] | None = None,
    shard_tokens: int = 10**8,
    progress: Progress | None = None,
) -> DataSummary:
    """Write folder `out`: `text_train_000000.bin`..., `text_val_000000.bin`..., `tokenizer.model`, `data.json`.

    Text for a tokenizer with the marks of CaseOps is marked before; sidecars `text_val_bytes_000000.bin`... state how
    many bytes of the text each token stands for.

    documents: the text; held out are the ones chosen by hash, a share of `val_fraction`, or exactly `heldout`
    when given.  tokenizer: an existing `.model` file; otherwise one of `vocab_size` pieces is trained on the
    training documents, `or_fewer` when they yield no more.  shard_tokens: a shard ends before the document that
    would exceed it (documents stay whole).  progress: percent encoded, after the tokenizer.  The folder appears
    complete or not at all; equal input, equal bytes.

    Raises: InputError for unusable text or tokenizer; UsageError for an `out` that holds something else.
    """
    split = split_by_hash(documents, val_fraction) if heldout is None else split_given(documents, heldout)
    with new_folder(out, replaces=_earlier) as folder:
        if progress:
            progress(0, "tokenizer")
        model = read_bytes(tokenizer) if tokenizer else train_tokenizer(split.train, vocab_size, or_fewer=or_fewer)
        processor = load_tokenizer(model, str(tokenizer or "tokenizer"))
        pieces = PieceBytes(processor, str(tokenizer or "tokenizer"))
        writer = _Writer(folder, processor, pieces, shard_tokens, _percent(split, progress))
        summary = DataSummary(
            train=writer.write("train", split.train),
            val=writer.write("val", split.heldout),
            vocab_size=processor.vocab_size(),
            tokenizer_sha256=hashlib.sha256(model).hexdigest(),
            duplicates_dropped=split.duplicates,
            heldout_dropped_from_train=split.heldout_in_train,
        )
        write_bytes(folder / TOKENIZER, model)
        write_bytes(folder / SUMMARY, (json.dumps(summary.to_dict(), indent=2) + "\n").encode())
    return summary


def write_fresh(documents: Sequence[str], tokenizer: str | Path, folder: Path) -> Path:
    """Write documents as a held-out shard into a folder, with its sidecar when the tokenizer needs one; its path.

    Raises: InputError for text or a tokenizer that cannot be used.
    """
    processor = load_tokenizer(read_bytes(tokenizer), str(tokenizer))
    pieces = PieceBytes(processor, str(tokenizer))
    _Writer(folder, processor, pieces, 10**9, lambda count: None).write("val", documents)
    return folder / "text_val_000000.bin"


def _earlier(names: set[str]) -> bool:
    """Whether these are the files that `build_dataset` writes, and no others."""
    shards = {name for name in names if re.fullmatch(r"text_(train|val|val_bytes)_\d{6}\.bin", name)}
    return names - shards == {TOKENIZER, SUMMARY}


def _percent(split: Split, progress: Progress | None) -> Callable[[int], None]:
    """A counter of encoded documents that reports percent."""
    total, done = len(split.train) + len(split.heldout), 0

    def count(documents: int) -> None:
        nonlocal done
        done += documents
        if progress:
            progress(100 * done // total, f"{done} documents")

    return count


@dataclass(frozen=True, slots=True)
class _Writer:
    folder: Path
    tokenizer: sentencepiece.SentencePieceProcessor
    pieces: PieceBytes
    shard_tokens: int
    encoded: Callable[[int], None]

    def write(self, split: str, documents: Sequence[str]) -> SplitSummary:
        count = tokens = text_bytes = shards = held = 0
        pending: list[np.ndarray] = []
        for document in self._encode(documents):
            ids, sizes = document
            if pending and held + len(ids) > self.shard_tokens:
                self._flush(split, shards, pending)
                shards, held, pending = shards + 1, 0, []
            pending.append(document)
            held += len(ids)
            count, tokens, text_bytes = count + 1, tokens + len(ids), text_bytes + int(sizes.sum())
        if not pending:
            raise InputError(f"the {split} documents hold no text that the tokenizer keeps")
        self._flush(split, shards, pending)
        return SplitSummary(documents=count, tokens=tokens, bytes=text_bytes, shards=shards + 1)

    def _encode(self, documents: Sequence[str]) -> Iterator[np.ndarray]:
        """Of each document: BOS and its ids, and the bytes of each, uint16 (2, n); skips what normalises to nothing."""
        for start in range(0, len(documents), BATCH):
            batch = list(documents[start : start + BATCH])
            marked = map(to_caseops, batch) if self.pieces.caseops else batch
            encoded = [ids for ids in self.tokenizer.encode(list(marked)) if ids]
            for document, text in zip(encoded, self.tokenizer.decode(encoded), strict=True):
                ids = np.array([BOS, *document], np.uint16)
                yield np.stack([ids, np.append(np.uint16(0), self.pieces.of(ids[1:], text))])
            self.encoded(len(batch))

    def _flush(self, split: str, number: int, pending: list[np.ndarray]) -> None:
        ids, sizes = np.concatenate(pending, 1)
        write_bytes(self.folder / f"text_{split}_{number:06d}.bin", shard_bytes(ids))
        if self.pieces.caseops and split == "val":
            write_bytes(self.folder / f"text_{split}_bytes_{number:06d}.bin", shard_bytes(sizes))
