"""How many bytes of text each token stands for, and the proof that they add up to the decoded text."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor

from codec.errors import InputError

BOS = 1  # starts every document of the data format
MARKER = "\u2581"  # SentencePiece writes a space as this character
PROOF_TOKENS = 1 << 20  # documents are decoded in groups of about this many tokens: 100 MB of Python objects


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBytes:
    """Per vocabulary id: length int64 (V,) without a leading space; spaced, boundary, unknown bool (V,).

    Source: the byte accounting of the challenge's evaluation: control tokens count 0, byte pieces 1, other
    pieces their UTF-8 length; a leading space counts 1 unless a boundary (control) token comes before it,
    because decoding drops the space there.  Spaces inside a piece count 1 as well.
    """

    length: np.ndarray
    spaced: np.ndarray
    boundary: np.ndarray
    unknown: np.ndarray

    @classmethod
    def from_tokenizer(cls, path: str | Path) -> "TokenBytes":
        """Read a SentencePiece model.

        Raises: InputError for a missing file, one that is no SentencePiece model, or id 1 not being BOS.
        """
        model = _model(path)
        ids = range(model.vocab_size())
        pieces = [model.id_to_piece(i) for i in ids]
        boundary = np.array([model.is_control(i) or model.is_unknown(i) or model.is_unused(i) for i in ids])
        byte = np.array([model.is_byte(i) for i in ids])
        text = [piece.removeprefix(MARKER).replace(MARKER, " ").encode() for piece in pieces]
        return cls(
            length=np.where(boundary, 0, np.where(byte, 1, [len(one) for one in text])).astype(np.int64),
            spaced=np.array([piece.startswith(MARKER) for piece in pieces]) & ~boundary & ~byte,
            boundary=boundary,
            unknown=np.array([model.is_unknown(i) for i in ids]),
        )

    def of(self, tokens: np.ndarray) -> np.ndarray:
        """Bytes of each target: tokens, integers (n + 1,) -> int64 (n,), entry p for tokens[p + 1].

        Raises: InputError for an id outside the vocabulary, or the unknown token, which has no bytes.
        """
        ids = np.asarray(tokens).astype(np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self.length):
            raise InputError(
                f"token ids span {ids.min()} to {ids.max()}, the tokenizer has {len(self.length)} pieces",
                hint="pass the tokenizer that made the tokens",
            )
        if self.unknown[ids].any():
            at = int(np.flatnonzero(self.unknown[ids])[0])
            raise InputError(
                f"the unknown token stands at position {at}, its bytes are lost",
                hint="use a tokenizer with byte fallback",
            )
        previous, target = ids[:-1], ids[1:]
        return np.asarray(self.length[target] + (self.spaced[target] & ~self.boundary[previous]))


def prove(tokens: np.ndarray, path: str | Path) -> dict[str, int]:
    """Show, document by document, that the counted bytes are the bytes of the decoded text.

    A document runs from one BOS to the next.  Its table sum must equal the length of the text put together
    from raw pieces and, where that is valid UTF-8, the length of what SentencePiece itself decodes.

    tokens: integers (n + 1,).  Returns documents, tokens (n), bytes (of the n targets) and not_utf8: documents
    that hold a cut character, which SentencePiece cannot decode exactly.
    Raises: InputError with the number of the first document that differs.
    """
    table, model = TokenBytes.from_tokenizer(path), _model(path)
    raw = [_raw(model, i) for i in range(model.vocab_size())]
    ids = np.asarray(tokens).astype(np.int64)
    total = int(table.of(ids).sum())
    if len(ids) and ids[0] != BOS:
        ids = np.concatenate([[BOS], ids])
    counted = np.concatenate([[0, 0], np.cumsum(table.of(ids))])  # counted[i]: bytes of ids[:i]
    starts = np.flatnonzero(ids == BOS)
    ends = np.append(starts[1:], len(ids))
    not_utf8 = 0
    for first, last in _groups(ends):
        documents = [ids[starts[d] + 1 : ends[d]].tolist() for d in range(first, last)]
        for number, document, text in zip(range(first, last), documents, model.decode(documents), strict=True):
            # A marker spelt in byte pieces is a space too: the tokenizer had no piece for it (+2 bytes a word).
            own = b"".join([raw[i] for i in document]).removeprefix(b" ").replace(MARKER.encode(), b" ")
            valid = _is_utf8(own)
            not_utf8 += not valid
            have, decoded = int(counted[ends[number]] - counted[starts[number]]), len(text.encode())
            if have != len(own) or (valid and have != decoded):
                raise InputError(
                    f"document {number} counts {have} bytes, its text has {len(own)}, SentencePiece "
                    f"decodes {decoded}: bits per byte would be wrong",
                    where=str(path),
                    hint=f"use a tokenizer with `{MARKER}` as its own piece, from `pgolf data`",
                )
    return {"documents": len(starts), "tokens": len(tokens) - 1, "bytes": total, "not_utf8": not_utf8}


def _model(path: str | Path) -> SentencePieceProcessor:
    try:
        data = Path(path).read_bytes()
        model = SentencePieceProcessor(model_proto=data) if data else None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except RuntimeError:
        model = None
    if model is None or not model.vocab_size():
        raise InputError("is not a SentencePiece model", where=str(path), hint="pass the data's *.model file")
    if not (model.vocab_size() > BOS and model.is_control(BOS)):
        raise InputError(
            f"has no control token at id {BOS}, where documents need BOS",
            where=str(path),
            hint="make the tokenizer with `pgolf data`",
        )
    return model


def _raw(model: SentencePieceProcessor, i: int) -> bytes:
    """The bytes one token puts into the text, before the leading space of a document is dropped."""
    piece: str = model.id_to_piece(i)
    if model.is_byte(i):
        return bytes([int(piece[3:-1], 16)])
    return b"" if model.is_control(i) or model.is_unused(i) else piece.replace(MARKER, " ").encode()


def _groups(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, last) document numbers of consecutive groups, each about PROOF_TOKENS long."""
    first = 0
    while first < len(ends):
        base = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, base + PROOF_TOKENS, "right")))
        yield first, last
        first = last


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
