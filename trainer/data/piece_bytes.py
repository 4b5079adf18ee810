"""Bytes that each token of a document puts into its text."""

import numpy as np
import sentencepiece

from codec.errors import InputError
from trainer.data.caseops import ESCAPE, MARKS
from trainer.data.tokenizer import SPACE


class PieceBytes:
    """Of one tokenizer.  caseops: whether it has the four marks of CaseOps, so that text is marked before it."""

    def __init__(self, tokenizer: sentencepiece.SentencePieceProcessor, where: str) -> None:
        ids = range(tokenizer.vocab_size())
        pieces = [tokenizer.id_to_piece(i) for i in ids]
        self.caseops = set(MARKS) <= set(pieces)
        self._length = np.array(
            [
                1 if tokenizer.is_byte(i) else 0 if tokenizer.is_control(i) else len(piece.replace(SPACE, " ").encode())
                for i, piece in zip(ids, pieces, strict=True)
            ],
            np.uint16,
        )
        self._spaced = np.array([piece.startswith(SPACE) for piece in pieces])
        self._marks = np.isin(pieces, list(MARKS)) & self.caseops
        self._escape = tokenizer.piece_to_id(ESCAPE)
        self._keeps_space = tokenizer.decode_pieces([SPACE]) == " "
        self._where = where

    def of(self, ids: np.ndarray, decoded: str) -> np.ndarray:
        """ids: a document's (n,) without BOS -> uint16 (n,), marks of CaseOps 0.  decoded: what SentencePiece decodes.

        Raises: InputError when they do not add up to the decoded text.
        """
        counts: np.ndarray = self._length[ids]
        counts[:1] -= self._spaced[ids[:1]] & (not self._keeps_space)
        have, need = int(counts.sum()), len(decoded.encode())
        if have != need:
            raise InputError(
                f"a document counts {have} bytes by its pieces, SentencePiece decodes {need}: "
                "bits per byte would be wrong",
                where=self._where,
                hint="train a tokenizer with `pgolf data --vocab-size N`",
            )
        escaped = -1
        for at in np.flatnonzero(self._marks[ids]).tolist():
            if escaped == at - 1 >= 0:
                continue  # text
            counts[at] = 0
            escaped = at if ids[at] == self._escape else -1
        return counts
