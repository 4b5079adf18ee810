"""Reads the sources packed inside a self-extracting script, as data: nothing of it is ever run.

The field's wrappers hold one literal: base 85 or 64 text (or raw bytes) around LZMA, zlib, gzip, bz2, brotli or zstd,
handed to exec.  Some hold another wrapper.  All are found from the syntax tree by trying what can be inside a literal,
in one piece or joined from several.  What looks packed and does not open is told by `unread`, with the reason.
"""

import ast
import base64
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import decode_source
from typing import Any

from codec.errors import EnvironmentLacks, InputError
from codec.storage.decompress import BeyondLimit, Mismatch, decompress, decompress_with, from_digits, has_brotli

MAX_SOURCE = 1 << 20  # characters of one source: the field's largest has 158,429; syntax trees take 600 times as much
MAX_CONTENT = 1 << 24  # bytes that one literal may expand to: as much as a whole submission may weigh
MAX_WORK = 1 << 26  # bytes that all attempts on a script's literals may give together
MAX_PARTS = 1 << 16  # pieces of one literal, with the sums that join them
PART = 64  # bytes of work that a piece counts for beside its own: a million of them take a tenth of a second
MAX_LAYERS = 4  # wrappers inside wrappers
LITERAL = 200  # characters; the shortest packed payload seen in the field has thousands
MEMORY = 1 << 27  # bytes of decoder memory: xz -9, which most of the field uses, asks for 65 MiB
PAYLOAD = re.compile(r"[^\s'\"]{200,}")  # runs of characters that no code has: one node of the tree, however long
# First bytes that no other data begins with -> compressor.
SIGNS = {b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b\x08": "gzip", b"BZh": "bz2", b"PK\3\4": "zip"}
STATEMENT = re.compile(r"^[ \t]*(import|from|def|class|async def|@)\b", re.MULTILINE)
OURS = re.compile(r"# pgolf-pack 2 ([0-9a-f]{8}): [^\n]*\n")
LOADER = "<loader>"  # what runs the others; no module can be called so
FOLDED = re.compile("\1(\\w+)")  # a word in capitals, as our dense form writes it
MAX_DIGITS = 1 << 17  # characters of a base 125 literal
FILTERS = {"FILTER_LZMA1": lzma.FILTER_LZMA1, "FILTER_LZMA2": lzma.FILTER_LZMA2, "FILTER_DELTA": lzma.FILTER_DELTA}
Filters = list[dict[str, Any]]
Attempt = tuple[str, Callable[[bytes], bytes | None]]  # (name, data -> content or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A source carried by a script.  name: of the module it becomes, LOADER or "" for the script itself.

    depth: 1 in the file's own literals, 2 in a wrapper inside that.  form: how it is packed, from the outside in.
    """

    name: str
    text: str
    depth: int
    form: str


def unread(source: str) -> tuple[str, ...]:
    """Why literals of a script that look packed could not be opened, a sentence each; () if all were.

    Raises: as `unwrap`.
    """
    return _opened(source)[1]


def unwrap(source: str) -> tuple[Layer, ...]:
    """The Python sources packed in the literals of a script, outermost first; () if there are none.

    Raises: InputError for a script over the size limit, content that expands beyond it, and a script of this toolkit
    whose content is not the one its header names; EnvironmentLacks when it takes the package brotli.
    """
    return _opened(source)[0]


@lru_cache(maxsize=4)
def _opened(source: str) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """(layers, why others could not be read)."""
    size = len(PAYLOAD.sub("", source))
    if size > MAX_SOURCE or len(source) > MAX_CONTENT:
        raise InputError(
            f"has {size:,} characters of code and {len(source) - size:,} of packed data, at most {MAX_SOURCE:,} and "
            f"{MAX_CONTENT:,} are read as source"
        )
    unpacker, found, texts = _Unpacker(), list[Layer](), [source]
    for depth in range(1, MAX_LAYERS + 1):
        layers = [
            Layer(name=name, text=part, depth=depth, form=form)
            for text in texts
            for data, form in unpacker.payloads(_checked(text))
            for name, part in _modules(data)
        ]
        texts = [layer.text for layer in layers]
        found += layers
    return tuple(found), tuple(dict.fromkeys(unpacker.unread))


def read_source(data: bytes) -> str:
    """Python source as text, by its coding cookie, else UTF-8.

    Raises: InputError when it is not text.
    """
    try:
        return decode_source(data)
    except (SyntaxError, LookupError, ValueError) as error:  # of the codecs a cookie can name some are of no text
        raise InputError(f"is not Python source ({error})") from None


@lru_cache(maxsize=4)
def parsed(text: str) -> ast.Module | None:
    """The syntax tree, None when this Python cannot read it."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class _Unpacker:
    """Tries what a literal can hold, within a budget for the whole script.

    work: bytes that attempts and joined pieces gave so far.  unread: why literals did not open.
    """

    def __init__(self) -> None:
        self.work = 0
        self.unread: list[str] = []

    def payloads(self, text: str) -> Iterator[tuple[bytes, str]]:
        """(content, form) of each literal of a source that holds sources."""
        tree = parsed(text)
        if tree is None:
            return
        attempts = [*_ENCODINGS, *_compressors(_filters(tree))]
        runs = any(isinstance(node, ast.Name) and node.id in ("exec", "eval", "compile") for node in ast.walk(tree))
        for value in _literals(tree, self._spend):
            with suppress(UnicodeEncodeError):
                literal = value.encode("latin-1") if isinstance(value, str) else value
                dense = [] if isinstance(value, str) else [("base125", _BASE125)]
                reasons: list[str] = []
                if found := self._expanded(literal, [*attempts, *dense], (), reasons):
                    yield found
                    continue
                self.unread += reasons[:1]
                if runs and isinstance(value, str) and _is_source(literal):
                    yield literal, "plain text"
                elif runs and "brotli" in text and b" " not in literal and not has_brotli():
                    raise EnvironmentLacks("is packed with brotli", hint="pip install 'brotli>=1.2'")

    def _expanded(
        self, data: bytes, attempts: list[Attempt], form: tuple[str, ...], reasons: list[str]
    ) -> tuple[bytes, str] | None:
        """Undo text encodings and compressors, in any order, until source appears.  reasons: what did not open."""
        if sign := next((name for magic, name in SIGNS.items() if data.startswith(magic)), ""):
            reasons += _refusal(data, sign, form)
        for name, attempt in attempts if len(form) < MAX_LAYERS else []:
            try:
                inner = attempt(data)
            except BeyondLimit:
                raise BeyondLimit(
                    f"holds a literal of {name} data that expands beyond {MAX_CONTENT:,} bytes",
                    hint="no script of the field has more than 158,429",
                ) from None
            if not inner:
                continue
            self._spend(len(inner))
            steps = (*form, name)
            if _is_source(inner):
                return inner, " ".join(steps)
            if found := self._expanded(inner, attempts, steps, reasons):
                return found
        return None

    def _spend(self, size: int) -> None:
        self.work += size
        if self.work > MAX_WORK:
            raise BeyondLimit(f"holds packed data that expands beyond {MAX_WORK:,} bytes in all")


def _refusal(data: bytes, name: str, form: tuple[str, ...]) -> list[str]:
    """Why data that begins as the compressor's does not open; [] when it does."""
    packed = " ".join((*form, name))
    if name == "zip":
        return [f"{packed} archive, which is not read"]
    try:
        _compressor(name)(data)
    except BeyondLimit:
        return []  # raised where it is tried
    except (Mismatch, MemoryError) as error:
        return [f"{packed} data that does not open ({str(error) or 'not enough memory'})"]
    return []


def _literals(tree: ast.Module, spend: Callable[[int], None]) -> Iterator[str | bytes]:
    """Texts and bytes of the length of a payload: as they stand, added up, or joined from a list.

    spend: told the work of each piece, as one name may stand for megabytes in a thousand places.
    Names stand for what the module's top level sets them to, once and plainly.
    """
    names: dict[str, ast.expr] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(target := statement.targets[0], ast.Name):
            names[target.id] = ast.Set([]) if target.id in names else statement.value
    joined: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.Call) and id(node) not in joined:
            parts = _parts(node, names, spend)
            values = [part.value for part in parts]
            whole: str | bytes | None = None
            if len(parts) > 1 and all(isinstance(value, str) for value in values):
                whole = "".join(values)  # type: ignore[arg-type]
            elif len(parts) > 1 and all(isinstance(value, bytes) for value in values):
                whole = b"".join(values)  # type: ignore[arg-type]
            if whole is not None and len(whole) >= LITERAL:
                joined |= {*map(id, parts), *map(id, ast.walk(node))}
                yield whole
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Constant) and id(node) not in joined else None
        if isinstance(value, str | bytes) and len(value) >= LITERAL:
            yield value


def _parts(node: ast.expr, names: dict[str, ast.expr], spend: Callable[[int], None]) -> list[ast.Constant]:
    """The constants that a sum or a join of constants puts together, in order; [] for anything else."""
    waiting, found = [node], list[ast.Constant]()
    for _ in range(MAX_PARTS):
        if not waiting:
            return found
        each = waiting.pop()
        if isinstance(each, ast.Name) and isinstance(names.get(each.id), ast.Constant):
            each = names[each.id]
        text = each.value if isinstance(each, ast.Constant) else None
        spend(PART + (len(text) if isinstance(text, str | bytes) else 0))
        if isinstance(each, ast.Constant):
            found.append(each)
        elif isinstance(each, ast.BinOp) and isinstance(each.op, ast.Add):
            waiting += [each.right, each.left]
        elif isinstance(each, ast.List | ast.Tuple):
            waiting += reversed(each.elts)
        elif isinstance(each, ast.Call) and _joins(each):
            waiting.append(names.get(getattr(each.args[0], "id", ""), each.args[0]))
        else:
            return []
    return []


def _joins(call: ast.Call) -> bool:
    """`"".join(PARTS)`."""
    function = call.func
    empty = (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Constant) and not function.value.value
    )
    return empty and getattr(function, "attr", "") == "join" and len(call.args) == 1


def _is_source(data: bytes) -> bool:
    """Python with at least one statement that does something; later syntax than this Python's is recognised by look."""
    try:
        text = max((source for _, source in _modules(data)), key=len)
    except UnicodeDecodeError:
        return False
    tree = parsed(text) if len(data) <= MAX_SOURCE else None
    if tree is None:
        return len(STATEMENT.findall(text)) >= 3
    return any(_does_something(node) for node in tree.body)


def _does_something(node: ast.stmt) -> bool:
    """Not what a table in JSON or a list of settings parses as."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    return not isinstance(node, ast.AnnAssign) or node.value is not None


def _modules(data: bytes) -> list[tuple[str, str]]:
    """(name, source) pairs: modules and script of our wrapper, the script alone of others."""
    *pairs, main = data.decode().split("\0")
    first = ""
    if len(pairs) % 2:  # the loader comes first; it undoes what the dense form did to capitals
        first, *pairs = pairs
        if "\1" in first:
            *pairs, main = (FOLDED.sub(lambda word: word[1].upper(), part) for part in (*pairs, main))
    return [*([(LOADER, first)] if first else []), *zip(pairs[::2], pairs[1::2], strict=True), ("", main)]


def _checked(text: str) -> str:
    """The text; of a script packed by this toolkit, when its first line names what follows.

    Raises: InputError when it does not.
    """
    if header := OURS.match(text):
        have = f"{zlib.crc32(text[header.end() :].encode()):08x}"
        if have != header[1]:
            raise InputError(
                f"holds content with CRC {have}, its first line names {header[1]}",
                hint="its content was exchanged after packing: pack it again",
            )
    return text


def _base125(text: bytes) -> bytes:
    """The number whose digits from 1 to 125 are the ASCII characters without NUL, CR and backslash, as bytes."""
    if len(text) > MAX_DIGITS or {0, 13, 92}.intersection(text) or max(text) > 127:
        raise ValueError
    number = from_digits([code - (code > 13) - (code > 92) for code in text], 125)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _filters(tree: ast.Module) -> Filters:
    """The `filters=` of the script's own lzma call: raw LZMA1 cannot be read without them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "filters" and isinstance(node.value, ast.List):
            with suppress(ValueError, TypeError):
                filters = [_filter(each) for each in node.value.elts]
                if all(each.get("id") in FILTERS.values() for each in filters):
                    return filters
    return []


def _filter(node: ast.expr) -> dict[str, Any]:
    if not isinstance(node, ast.Dict):
        raise ValueError
    keys = [ast.literal_eval(key) for key in node.keys if key]
    found = dict(zip(keys, map(_number, node.values), strict=True))
    return found | ({"dict_size": min(found["dict_size"], MEMORY)} if "dict_size" in found else {})


def _number(node: ast.expr) -> Any:
    named = getattr(node, "attr", getattr(node, "id", ""))
    return FILTERS[named] if named in FILTERS else ast.literal_eval(node)


def _compressors(filters: Filters) -> list[Attempt]:
    # LZMA2 carries its own settings; only the window must be large enough.
    raw = filters or [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 24}]
    return [
        ("lzma", _attempt(_compressor("xz"))),
        ("lzma", _attempt(_compressor("lzma"))),
        ("raw lzma", _attempt(partial(_raw_lzma, raw))),
        *((name, _attempt(_compressor(name))) for name in ("zlib", "gzip", "deflate", "bz2", "zstd", "brotli")),
    ]


def _compressor(name: str) -> Callable[[bytes], bytes]:
    return partial(decompress, name=name, limit=MAX_CONTENT, memory=MEMORY, trailing=True)


def _raw_lzma(filters: Filters, data: bytes) -> bytes:
    def make() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)

    return decompress_with(make, data, "raw lzma", MAX_CONTENT, trailing=True)


def _attempt(decode: Callable[[bytes], bytes]) -> Callable[[bytes], bytes | None]:
    """The content, None when the data was not made this way or nothing is in it."""

    def attempt(data: bytes) -> bytes | None:
        try:
            return decode(data) or None
        except (ValueError, Mismatch, EnvironmentLacks, MemoryError):  # binascii.Error is a ValueError
            return None

    return attempt


def _joined_lines(decode: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """The decoder of text that is broken into lines: scripts take the breaks out, or their decoder passes over them."""
    return lambda data: decode(data.translate(None, b" \t\r\n"))


_BASE85 = _attempt(_joined_lines(base64.b85decode))
_BASE125 = _attempt(_base125)
_ENCODINGS: list[Attempt] = [
    ("base85", _BASE85),
    ("base64", _attempt(_joined_lines(lambda data: base64.b64decode(data, validate=True)))),
    ("base64", _attempt(_joined_lines(lambda data: base64.b64decode(data, b"-_", validate=True)))),
    ("base32", _attempt(_joined_lines(base64.b32decode))),
    ("hex", _attempt(lambda data: bytes.fromhex(data.decode("ascii")))),
    ("ascii85", _attempt(base64.a85decode)),
    ("ascii85", _attempt(lambda data: base64.a85decode(data, adobe=True))),
]
