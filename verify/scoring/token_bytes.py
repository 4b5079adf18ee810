"""How many bytes of text each token stands for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor

from codec.errors import InputError

BOS = 1  # starts every document of the data format
MARKER = "\u2581"  # SentencePiece writes a space as this character


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBytes:
    """Per vocabulary id: length int64 (V,) without a leading space; spaced, boundary, unknown, operator bool (V,).

    Source: the byte accounting of the challenge's evaluation: control tokens count 0, byte pieces 1, other
    pieces their UTF-8 length; a leading space counts 1 unless a boundary (control) token comes before it,
    because decoding drops the space there; a tokenizer that keeps it has no boundaries.  Spaces inside a piece count 1
    as well.

    operator: pieces of private-use characters that were defined by hand, before the pieces learned from text.  They
    are taken for marks of a reversible transform (CaseOps has U+E001 to U+E004), which are no text.
    """

    length: np.ndarray
    spaced: np.ndarray
    boundary: np.ndarray
    unknown: np.ndarray
    operator: np.ndarray

    @classmethod
    def from_tokenizer(cls, path: str | Path) -> "TokenBytes":
        """Read a SentencePiece model.

        Raises: InputError for a missing file, one that is no SentencePiece model, or id 1 not being BOS.
        """
        model = open_tokenizer(path)
        ids = range(model.vocab_size())
        pieces = [model.id_to_piece(i) for i in ids]
        boundary = np.array([model.is_control(i) or model.is_unknown(i) or model.is_unused(i) for i in ids])
        byte = np.array([model.is_byte(i) for i in ids])
        text = [piece.removeprefix(MARKER).replace(MARKER, " ").encode() for piece in pieces]
        return cls(
            length=np.where(boundary, 0, np.where(byte, 1, [len(one) for one in text])).astype(np.int64),
            spaced=np.array([piece.startswith(MARKER) for piece in pieces]) & ~boundary & ~byte,
            boundary=boundary & (not keeps_space(model)),
            unknown=np.array([model.is_unknown(i) for i in ids]),
            operator=np.array(["\ue000" <= piece <= "\uf8ff" for piece in pieces]) & ~np.logical_or.accumulate(byte),
        )

    def of(self, tokens: np.ndarray, stated: np.ndarray | None = None) -> np.ndarray:
        """Bytes of each target: tokens, integers (n + 1,) -> int64 (n,), entry p for tokens[p + 1].

        stated: bytes of each token (n + 1,) as a sidecar states them; they are what counts.

        Raises: InputError for an id outside the vocabulary; without `stated` also for the unknown token, which has
        no bytes, and for an operator, whose bytes only a sidecar knows.
        """
        ids = np.asarray(tokens).astype(np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self.length):
            raise InputError(
                f"token ids span {ids.min()} to {ids.max()}, the tokenizer has {len(self.length)} pieces",
                hint="pass the tokenizer that made the tokens",
            )
        if stated is not None:
            return np.asarray(stated[1:].astype(np.int64))
        for marks, fault, hint in (
            (self.unknown, "is the unknown token, its bytes are lost", "use a tokenizer with byte fallback"),
            (
                self.operator,
                "is an operator of a transform (CaseOps), which is no text",
                "put the sidecar, *_val_bytes_*.bin, beside the shard *_val_*.bin",
            ),
        ):
            if marks[ids].any():
                raise InputError(f"token {np.flatnonzero(marks[ids])[0]} {fault}", hint=hint)
        previous, target = ids[:-1], ids[1:]
        return np.asarray(self.length[target] + (self.spaced[target] & ~self.boundary[previous]))


def open_tokenizer(path: str | Path) -> SentencePieceProcessor:
    """Raises: InputError for a missing file, one that is no SentencePiece model, or id 1 not being BOS."""
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


def keeps_space(model: SentencePieceProcessor) -> bool:
    """Whether decoding keeps a space at the start: made with add_dummy_prefix and remove_extra_whitespaces off."""
    return bool(model.decode_pieces([MARKER]) == " ")
