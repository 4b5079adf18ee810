"""Documents: reading text files, dropping duplicates, choosing the held-out ones by what they say."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from codec.errors import InputError, UsageError
from codec.storage.atomic_files import read_bytes

SEPARATOR = "<|endoftext|>"
PARAGRAPH_GROUP = 2000  # characters; FineWeb documents average 2.7 KB


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Training and held-out documents, disjoint.

    train: ordered by content hash, so that a loader that reads in sequence sees all sources mixed.
    heldout: in reading order.  duplicates: repeated documents that were dropped.
    heldout_in_train: training documents that were dropped because they are held out.
    """

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    duplicates: int
    heldout_in_train: int = 0


def read_documents(paths: Iterable[str | Path]) -> list[str]:
    """The documents of text files, in reading order, duplicates included.

    `.jsonl` and `.json`: one object with a `text` field per line.  Any other name: plain UTF-8 text, cut at
    `<|endoftext|>` when the file has that mark, else at blank lines (at line ends when it has no blank line),
    neighbouring paragraphs joined until they hold 2000 characters.

    Raises: InputError for a missing or empty file, text that is not UTF-8, a line that is not such an object.
    """
    documents = []
    for path in map(Path, paths):
        text = _utf8(read_bytes(path), path)
        is_json = path.suffix.lower() in (".jsonl", ".json")
        found = _json_documents(text, path) if is_json else _plain_documents(text)
        if not found:
            raise InputError("holds no text, only white space", where=str(path))
        documents += found
    return documents


def content_hash(document: str) -> bytes:
    """SHA-256 of the text after NFKC and with white space collapsed.

    The tokenizer applies the same two steps, so documents that would become equal tokens hash alike.
    """
    text = " ".join(unicodedata.normalize("NFKC", document).split())
    return hashlib.sha256(text.encode()).digest()


def split_by_hash(documents: Iterable[str], fraction: float) -> Split:
    """Hold out the documents whose hash, read as a number in [0, 1), is below `fraction`.

    Depends on each document's text alone: not on order, file names or the other documents, except that at
    least one document is held out and at least one is kept.

    Raises: UsageError unless 0 < fraction < 1; InputError for fewer than two distinct documents.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the held-out fraction is {fraction:g}, it must lie between 0 and 1")
    hashed, duplicates = _distinct(documents)
    if len(hashed) < 2:
        raise InputError(
            f"found {len(hashed)} distinct document(s), a split needs at least 2",
            hint=f"separate documents with {SEPARATOR}, or pass held-out text with --val",
        )
    ranked = sorted(hashed)
    below = sum(int.from_bytes(key[:8]) < fraction * 2**64 for key in ranked)
    heldout = set(ranked[: min(max(below, 1), len(ranked) - 1)])
    return Split(
        train=tuple(hashed[key] for key in ranked if key not in heldout),
        heldout=tuple(text for key, text in hashed.items() if key in heldout),
        duplicates=duplicates,
    )


def split_given(documents: Iterable[str], heldout: Sequence[str]) -> Split:
    """Hold out the documents given; drop them from training wherever they occur there.

    Raises: InputError when nothing is held out or nothing is left to train on.
    """
    given, duplicates_heldout = _distinct(heldout)
    hashed, duplicates = _distinct(documents)
    train = tuple(hashed[key] for key in sorted(hashed) if key not in given)
    if not given:
        raise InputError("found no held-out document", hint="pass text with --val")
    if not train:
        raise InputError(
            f"every one of the {len(hashed)} training documents is also held out", hint="train on other text"
        )
    return Split(
        train=train,
        heldout=tuple(given.values()),
        duplicates=duplicates + duplicates_heldout,
        heldout_in_train=len(hashed) - len(train),
    )


def _distinct(documents: Iterable[str]) -> tuple[dict[bytes, str], int]:
    """hash -> first document with it, in reading order; and the number of repeats."""
    hashed: dict[bytes, str] = {}
    count = 0
    for count, document in enumerate(documents, 1):  # noqa: B007  (the last value is the number of documents)
        hashed.setdefault(content_hash(document), document)
    return hashed, count - len(hashed)


def _utf8(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"is not UTF-8 text (byte 0x{data[error.start]:02x} on line {line})",
            where=str(path),
            hint="convert it to UTF-8",
        ) from None


def _json_documents(text: str, path: Path) -> list[str]:
    # split("\n") and not splitlines(): JSON strings may hold U+2028, which is no line end here.
    numbered = enumerate(text.split("\n"), 1)
    found = (_json_text(line, f"{path} line {number}") for number, line in numbered if line.strip())
    return [document for document in found if document.strip()]


def _json_text(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise InputError(f"is not JSON ({reason})", where=where, hint="write one object per line") from None
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        have = "fields " + (", ".join(list(value)[:5]) or "none") if isinstance(value, dict) else "no object"
        raise InputError(f'has {have}, a document needs a string field "text"', where=where)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError("holds half of a surrogate pair, which is no UTF-8 text", where=where)
    return text


def _plain_documents(text: str) -> list[str]:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if SEPARATOR in text:
        return [part.strip() for part in text.split(SEPARATOR) if part.strip()]
    lines = [line.rstrip() for line in text.strip().split("\n")]
    paragraphs = "\n".join(lines).split("\n\n" if "" in lines else "\n")
    documents: list[str] = []
    group: list[str] = []
    for paragraph in (p.strip("\n") for p in paragraphs):
        if paragraph:
            group.append(paragraph)
        if sum(map(len, group)) >= PARAGRAPH_GROUP:
            documents.append("\n".join(group))
            group = []
    return [*documents, "\n".join(group)] if group else documents
