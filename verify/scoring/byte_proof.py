"""The proof that the counted bytes add up to the text, and what speaks against it where there is none."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor

from codec.errors import InputError
from verify.scoring.token_bytes import BOS, MARKER, TokenBytes, keeps_space, open_tokenizer

PROOF_TOKENS = 1 << 20  # documents are decoded in groups of about this many tokens: 100 MB of Python objects
# Tokenizers normalise the text (NFKC, white space), the field's sidecars state the text before that.  Of 1,200 web
# documents 66 differ, one by 22 %, all together by 0.007 %.  Beyond this share the sidecar belongs to another text.
NORMALISED = 0.01
CASEOPS = "\ue001\ue002\ue003\ue004"  # word in title case, word in capitals, capital letter, the next one is text
MARKED = re.compile(rb"\xee\x80\x84(\xee\x80[\x81-\x84])|\xee\x80[\x81-\x83]")  # in UTF-8
NAMED = re.compile(r"case_?ops|case_?fold|lossless_?caps", re.IGNORECASE)


def prove(tokens: np.ndarray, path: str | Path) -> dict[str, int]:
    """Show, document by document, that the counted bytes are the bytes of the decoded text.

    A document runs from one BOS to the next.  Its table sum must equal the length of the text put together
    from raw pieces and, where that is valid UTF-8, the length of what SentencePiece itself decodes.

    tokens: integers (n + 1,).  Returns documents, tokens (n), bytes (of the n targets) and not_utf8: documents
    that hold a cut character, which SentencePiece cannot decode exactly.
    Raises: InputError with the number of the first document that differs.
    """
    counts = _counts(tokens, None, path)
    documents = not_utf8 = 0
    for have, own, decoded in _documents(tokens, counts, path):
        valid = _is_utf8(own)
        if have != len(own) or (valid and have != decoded):
            raise InputError(
                f"document {documents} counts {have} bytes, its text has {len(own)}, SentencePiece "
                f"decodes {decoded}: bits per byte would be wrong",
                where=str(path),
                hint=_way_out(path),
            )
        documents, not_utf8 = documents + 1, not_utf8 + (not valid)
    return {
        "documents": documents,
        "tokens": len(tokens) - 1,
        "bytes": int(counts[1:].sum()),
        "not_utf8": not_utf8,
    }


def prove_stated(tokens: np.ndarray, stated: np.ndarray, path: str | Path) -> dict[str, int]:
    """Hold a sidecar against the text, document by document: its sum is the decoded text's with the transform undone.

    Undone is CaseOps (`lossless_caps_caseops_v1`) where the tokenizer has its operators, else nothing: no other
    inverse is known.  CaseOps changes the case of ASCII letters, so its marks are all that it adds.

    tokens, stated: integers (n + 1,).  Returns what `prove` does for the stated bytes, and differing: documents whose
    sum is another one; text_bytes: of the decoded text with the transform undone.
    Raises: InputError when the inverse is known and the sums are further apart than normalised text explains.
    """
    counts, known = _counts(tokens, stated, path), caseops(path)
    documents = not_utf8 = differing = text = 0
    for have, own, _ in _documents(tokens, counts, path):
        plain, valid = len(MARKED.sub(rb"\1", own) if known else own), _is_utf8(own)
        documents, text = documents + 1, text + plain
        not_utf8, differing = not_utf8 + (not valid), differing + (valid and have != plain)
    total = int(counts[1:].sum())
    if known and abs(int(counts.sum()) - text) > NORMALISED * text:
        raise InputError(
            f"the sidecar states {total} bytes, the text has {text} when CaseOps is undone: "
            "bits per byte would be wrong",
            hint="use tokens, sidecar and tokenizer of one export",
        )
    return {
        "documents": documents,
        "tokens": len(tokens) - 1,
        "bytes": total,
        "not_utf8": not_utf8,
        "differing": differing,
        "text_bytes": text,
    }


def caseops(path: str | Path) -> bool:
    """Whether the tokenizer's operators are the four of CaseOps."""
    model, operator = open_tokenizer(path), TokenBytes.from_tokenizer(path).operator
    return {model.id_to_piece(i) for i in np.flatnonzero(operator).tolist()} == set(CASEOPS)


def doubt(tokens: np.ndarray, path: str | Path, shards: Sequence[Path]) -> str:
    """Why tokens without a sidecar may be of transformed text all the same; "" without a sign of it.

    Signs are names, and pieces defined by hand that are neither white space nor words.  Both are guesses.
    """
    for name in (Path(path).name, *(Path(shard).resolve().parent.name for shard in shards)):
        if found := NAMED.search(name):
            return f"a guess: text of `{name}` went through a transform ({found[0]}), and no sidecar states its bytes"
    model = open_tokenizer(path)
    learned = next((i for i in range(model.vocab_size()) if model.is_byte(i)), 0)
    by_hand = {i: model.id_to_piece(i) for i in range(learned) if not _is_control(model, i)}
    marks = [i for i, piece in by_hand.items() if not re.fullmatch(r"[\s\w]*", piece.replace(MARKER, " "))]
    found_ids, times = np.unique(np.asarray(tokens)[np.isin(tokens, marks)], return_counts=True)
    if not times.size:
        return ""
    return (
        f"a guess: `{by_hand[int(found_ids[0])]}`, defined by hand in the tokenizer, marks a transform; such pieces "
        f"stand {times.sum():,} times and count as text, for no sidecar states their bytes"
    )


def _counts(tokens: np.ndarray, stated: np.ndarray | None, path: str | Path) -> np.ndarray:
    """Bytes of every token, the first one as if it stood behind BOS: int64 (n + 1,)."""
    table, ids = TokenBytes.from_tokenizer(path), np.asarray(tokens)
    rest = table.of(ids, stated)
    led = np.concatenate([[BOS], ids[:1]])
    first = table.of(led, None if stated is None else np.concatenate([[0], stated[:1]]))
    return np.concatenate([first, rest])


def _documents(tokens: np.ndarray, counts: np.ndarray, path: str | Path) -> Iterator[tuple[int, bytes, int]]:
    """Of each document: its counted bytes, its text put together from raw pieces, the length SentencePiece decodes."""
    model, ids = open_tokenizer(path), np.asarray(tokens)
    raw = [_raw(model, i) for i in range(model.vocab_size())]
    dropped = b"" if keeps_space(model) else b" "
    counted = np.concatenate([[0], np.cumsum(counts)])  # counted[i]: bytes of ids[:i]
    starts = np.flatnonzero(ids == BOS) + 1
    if len(ids) and ids[0] != BOS:
        starts = np.concatenate([[0], starts])
    ends = np.append(starts[1:] - 1, len(ids))
    for first, last in _groups(ends):
        documents = [ids[starts[d] : ends[d]].tolist() for d in range(first, last)]
        for number, document, text in zip(range(first, last), documents, model.decode(documents), strict=True):
            # A marker spelt in byte pieces is a space too: the tokenizer had no piece for it (+2 bytes a word).
            own = b"".join([raw[i] for i in document]).removeprefix(dropped).replace(MARKER.encode(), b" ")
            yield int(counted[ends[number]] - counted[starts[number]]), own, len(text.encode())


def _way_out(path: str | Path) -> str:
    model = open_tokenizer(path)
    if model.piece_to_id(MARKER) == model.unk_id():
        return f"use a tokenizer with `{MARKER}` as its own piece, from `pgolf data`"
    if any(model.id_to_piece(i)[1:].endswith(MARKER) for i in range(model.vocab_size())):
        return "it writes spaces behind words (treat_whitespace_as_suffix), they are counted in front: use another"
    return "its decoder changes more than the space in front of a document: use a tokenizer from `pgolf data`"


def _is_control(model: SentencePieceProcessor, i: int) -> bool:
    return bool(model.is_control(i) or model.is_unknown(i) or model.is_unused(i))


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
