"""Byte n-gram models: how many bits per byte plain counting needs, the mark that a trained model must beat.

An order-k model predicts each byte from the k bytes before it.  Orders are interpolated by Witten and Bell's
rule.  Documents are scored one by one: contexts never cross a document's start (they are padded with NUL
there), and no symbol is spent on where a document ends.
"""

import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece

from codec.errors import InputError
from verify.scoring.token_bytes import BOS

MAX_ORDER = 3  # a context of 3 bytes and its next byte fill one uint32
ORDERS = (1, 2, 3)

Keys = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Level:
    """Counts of one order.  keys: context and next byte; contexts; both sorted and packed as in `_keys`."""

    keys: Keys
    counts: npt.NDArray[np.int64]
    contexts: Keys
    totals: npt.NDArray[np.int64]
    distinct: npt.NDArray[np.int64]

    def refine(self, lower: Floats, keys: Keys) -> Floats:
        """p(next byte | context) from `lower`, the same under the order below."""
        count = _lookup(self.keys, self.counts, keys)
        context = keys >> np.uint32(8)
        total = _lookup(self.contexts, self.totals, context)
        distinct = _lookup(self.contexts, self.distinct, context)
        # 0/0 in a context never seen: the order below decides alone.
        return np.where(total > 0, (count + distinct * lower) / np.maximum(total + distinct, 1), lower)


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteModel:
    """An interpolated model of order len(levels) - 1.

    p_k(s | c) = (n(c s) + t(c) p_{k-1}(s | c')) / (n(c) + t(c)) with n counts, t(c) the number of distinct
    bytes seen after context c, c' the context without its oldest byte, and p_{-1} = 1/256.

    Source: Witten and Bell 1991, method C.
    """

    levels: tuple[_Level, ...]

    @classmethod
    def fit(cls, documents: Sequence[bytes], order: int) -> "ByteModel":
        """Count the bytes of training documents, for order 0 to 3."""
        keys = _keys(documents)
        return cls(levels=tuple(_level(_low_bytes(keys, k + 1)) for k in range(order + 1)))

    def probabilities(self, context: bytes) -> Floats:
        """p of each of the 256 next bytes, (256,); context: the document so far."""
        recent = int.from_bytes(context[-MAX_ORDER:].rjust(MAX_ORDER, b"\0"), "big")
        return list(self._by_order((recent << 8) + np.arange(256, dtype=np.uint32)))[-1]

    def bits_by_order(self, documents: Sequence[bytes]) -> list[float]:
        """Bits for all the documents under order 0, 1, ... of this model."""
        keys, repeats = np.unique(_keys(documents), return_counts=True)
        return [float(-(repeats * np.log2(p)).sum()) for p in self._by_order(keys)]

    def _by_order(self, keys: Keys) -> Iterator[Floats]:
        probability = np.full(len(keys), 1 / 256)
        for k, level in enumerate(self.levels):
            probability = level.refine(probability, _low_bytes(keys, k + 1))
            yield probability


def bits_per_byte(train: Sequence[bytes], heldout: Sequence[bytes], orders: Sequence[int] = ORDERS) -> dict[int, float]:
    """order -> bits per byte of the held-out documents under models fitted on the training documents.

    Raises: InputError when nothing is held out.
    """
    size = _size(heldout)
    bits = ByteModel.fit(train, max(orders)).bits_by_order(heldout)
    return {order: bits[order] / size for order in orders}


def xz_bits_per_byte(heldout: Sequence[bytes]) -> float:
    """Bits per byte of `xz -9` on the held-out documents joined by newlines; it sees no training text.

    Raises: InputError when nothing is held out.
    """
    return 8 * len(lzma.compress(b"\n".join(heldout), preset=9)) / _size(heldout)


def decoded_documents(tokens: npt.NDArray[np.integer], tokenizer_path: str | Path) -> list[bytes]:
    """The text of a shard's ids (count,) as one bytes object per document, cut at BOS (id 1).

    These are the bytes that bpb divides by: byte pieces are raw bytes, so a document whose end is cut inside
    a character stays exact, and the space in front of a document's first word is not part of it.

    Raises: InputError for a file that is no tokenizer or ids beyond its vocabulary.
    """
    pieces = _piece_bytes(tokenizer_path)
    ids = np.asarray(tokens, np.int64)
    if len(ids) and int(ids.max()) >= len(pieces):
        raise InputError(
            f"the shard holds id {ids.max()}, the tokenizer has {len(pieces)} pieces",
            where=str(tokenizer_path),
            hint="use the tokenizer the shard was made with",
        )
    parts = np.split(ids, np.flatnonzero(ids == BOS))
    documents = (b"".join([pieces[i] for i in part.tolist()]) for part in parts)
    return [document.removeprefix(b" ") for document in documents if document]


def _piece_bytes(tokenizer_path: str | Path) -> list[bytes]:
    tokenizer = sentencepiece.SentencePieceProcessor()
    try:
        tokenizer.Load(str(tokenizer_path))
    except (OSError, RuntimeError):
        raise InputError("is not a readable SentencePiece model", where=str(tokenizer_path)) from None

    def text(piece: int) -> bytes:
        if tokenizer.is_control(piece) or tokenizer.is_unknown(piece) or tokenizer.is_unused(piece):
            return b""
        name: str = tokenizer.id_to_piece(piece)
        if tokenizer.is_byte(piece):
            return bytes([int(name[3:5], 16)])
        return name.replace("\u2581", " ").encode()

    return [text(piece) for piece in range(tokenizer.vocab_size())]


def _keys(documents: Sequence[bytes]) -> Keys:
    """One key per byte of the documents: itself in bits 0-7, the byte before in bits 8-15, ..."""
    padding = b"\0" * MAX_ORDER
    padded = b"".join(padding + document for document in documents)
    stream = np.frombuffer(padded, np.uint8).astype(np.uint32)
    is_text = np.ones(len(stream), np.bool_)
    starts = np.cumsum([0, *(MAX_ORDER + len(document) for document in documents)])[:-1]
    for offset in range(MAX_ORDER):
        is_text[starts + offset] = False
    keys = stream.copy()
    for back in range(1, MAX_ORDER + 1):
        keys[back:] |= stream[:-back] << np.uint32(8 * back)
    return keys[is_text]


def _low_bytes(keys: Keys, count: int) -> Keys:
    return keys & np.uint32(256**count - 1)


def _level(keys: Keys) -> _Level:
    distinct_keys, counts = np.unique(keys, return_counts=True)
    contexts, first = np.unique(distinct_keys >> np.uint32(8), return_index=True)
    totals = np.add.reduceat(counts, first) if len(first) else counts
    return _Level(
        keys=distinct_keys,
        counts=counts,
        contexts=contexts,
        totals=totals,
        distinct=np.diff(np.append(first, len(distinct_keys))),
    )


def _lookup(table: Keys, values: npt.NDArray[np.int64], wanted: Keys) -> npt.NDArray[np.int64]:
    """The value of each wanted key, 0 for keys that the sorted table lacks."""
    if not len(table):
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return np.where(table[place] == wanted, values[place], 0)


def _size(heldout: Sequence[bytes]) -> int:
    size = sum(map(len, heldout))
    if not size:
        raise InputError("there is no held-out text to score")
    return size
