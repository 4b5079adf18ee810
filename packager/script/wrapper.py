"""The self-extracting script: one ASCII file that holds a script and the modules it imports.

    # pgolf-pack 2 <CRC-32 of all that follows>: pgolf inspect --unwrap DIR
    # NAME=value                            what the caller wants to be seen, if anything
    payload literal and the code that opens it, which runs the first part of the payload: the loader

The payload is UTF-8 text: loader NUL name NUL source NUL ... main script (Python source cannot hold a NUL), compressed
with LZMA, or brotli where the script imports that anyway.

    safe    base 85: printable, any editor keeps it
    dense   base 125 with capitals folded where that is smaller: 8 % fewer bytes; holds control characters, so git needs
            `train_gpt.py -text` in .gitattributes, and tools that trim blanks destroy it

A wrapper is valid only if it is exactly what `wrap` writes around its literal, so reading one says everything it will
run.
"""

import ast
import base64
import re
import zlib
from collections.abc import Mapping
from typing import Literal

from codec.errors import CodecError, InputError
from codec.storage.decompress import BeyondLimit, Mismatch, decompress
from packager.script import base125
from packager.script.capitals import fold, unfold
from packager.script.compression import brotli_stream, lzma_alone
from packager.script.loader import loader

MAIN = "__main__"  # the script's key in what unwrap returns
MAX_PAYLOAD = 1 << 24  # 16 MB of source: a hundred times the largest published script
MEMORY_LIMIT = 1 << 26
MAGIC = b"# pgolf-pack 2 "
Form = Literal["safe", "dense"]
NOTHING: Mapping[str, str] = {}
HEADER = "# pgolf-pack 2 {:08x}: pgolf inspect --unwrap DIR\n"
SAFE = (
    'S=__import__("{codec}").decompress(__import__("base64").b85decode("{literal}")).decode().split("\\0");exec(S[0])\n'
)
DENSE = """\
S=0
for c in b\"""{literal}\""":S=S*125+c-(c>13)-(c>92)
S=__import__("{codec}").decompress(S.to_bytes({length},"big")).decode().split("\\0");exec(S[0])
"""
_FORM = re.compile(
    r"# pgolf-pack 2 [0-9a-f]{8}: pgolf inspect --unwrap DIR\n"
    r"((?:# (?!\w*coding=)\w+=[ -~]+\n)*)"
    r"(?:" + re.escape(SAFE).replace(r"\{codec\}", "(lzma|brotli)").replace(r"\{literal\}", r"([!#-\[\]-~]*)") + r"|"
    + re.escape(DENSE)
    .replace(r"\{literal\}", r'([\x01-\x0c\x0e-\x7f]*)')
    .replace(r"\{codec\}", "(lzma|brotli)")
    .replace(r"\{length\}", "(0|[1-9][0-9]{0,6})")
    + r")"
)  # fmt: skip


def wrap(main: str, modules: Mapping[str, str], *, form: Form = "safe", shown: Mapping[str, str] = NOTHING) -> bytes:
    """A script and the modules it imports -> the bytes of one file that runs alone.

    A module is found under its dotted name; the script runs with the file's own `__name__` and `__file__`, so
    `python train_gpt.py`, torchrun, spawn and runpy.run_path all work.

    shown: NAME -> value, each a comment line that says what is inside.

    Raises: InputError for text that cannot be Python source, or a module name that cannot be imported.
    """
    for name, text in {**modules, MAIN: main}.items():
        if not _importable(name):
            raise InputError(f"`{name}` cannot be a module name")
        if "\0" in text or not _encodable(text):
            raise InputError("holds a NUL or a lone surrogate, which Python source cannot", where=name)
    for name, value in shown.items():
        if not (name.isidentifier() and name.isascii() and value.isascii() and value.isprintable() and value):
            raise InputError(f"`{name}` with the value {value!r} cannot be shown on a line of its own")
        if name.endswith("coding"):  # in one of the first two lines Python takes it for the file's encoding (PEP 263)
            raise InputError(f"`{name}` cannot be shown: Python would take it for the encoding of the file")
    if MAIN in modules:
        raise InputError(f"a module cannot be called {MAIN}")
    parts = [*(part for pair in modules.items() for part in pair), main]
    size = sum(len(part.encode()) for part in parts)
    if size > MAX_PAYLOAD:
        raise InputError(f"the script and its modules have {size:,} bytes, at most {MAX_PAYLOAD:,} fit")
    payloads = ["\0".join([loader(modules=bool(modules), folded=False), *parts])]
    if form == "dense" and (folded := fold("\0".join(parts))) is not None:
        payloads.append("\0".join([loader(modules=bool(modules), folded=True), folded]))
    codec, packed = _smallest([payload.encode() for payload in payloads], with_brotli=_imports_brotli(main))
    return _assembled(packed, codec, form, "".join(f"# {name}={value}\n" for name, value in shown.items()))


def unwrap(data: bytes) -> dict[str, str]:
    """The modules of a wrapper in order, then the script as `__main__`; nothing is executed.

    Exact inverse of `wrap`.  Memory stays bounded whatever the bytes say.
    Raises: CodecError for anything that is not exactly a wrapper of this version; EnvironmentLacks when it takes the
    package brotli.
    """
    if not data.startswith(MAGIC):
        raise CodecError("is not a script packed by this toolkit")
    match = _FORM.fullmatch(data.decode("latin-1"))
    if not match:
        raise CodecError("is a packed script whose loader was altered or cut", hint="pack it again")
    shown, safe_codec, safe, dense, dense_codec, length = match.groups()
    codec = safe_codec or dense_codec
    try:
        packed = base64.b85decode(safe) if dense is None else base125.decode(_unescaped(dense), int(length))
        # Some bits of an LZMA stream change nothing in what it decodes to; the CRC sees those as well.
        if _assembled(packed, codec, "safe" if dense is None else "dense", shown) != data:
            raise CodecError("is a packed script whose content does not match its checksum", hint="pack it again")
        payload = decompress(packed, codec, MAX_PAYLOAD, memory=MEMORY_LIMIT).decode()
    except BeyondLimit:
        raise CodecError(f"is a packed script of more than {MAX_PAYLOAD} bytes of source") from None
    except UnicodeDecodeError:
        raise CodecError("is a packed script whose content is not text", hint="pack it again") from None
    except (ValueError, Mismatch) as error:
        raise CodecError(f"is a packed script that cannot be decompressed ({error})", hint="pack it again") from None
    first, *parts = payload.split("\0")
    if first == loader(modules=len(parts) > 1, folded=True):
        parts = [unfold(part) for part in parts]
    elif first != loader(modules=len(parts) > 1, folded=False):
        raise CodecError("is a packed script whose loader was altered or cut", hint="pack it again")
    *pairs, main = parts or [""]
    names, texts = pairs[::2], pairs[1::2]
    if len(names) != len(texts) or len({*names, MAIN}) != len(names) + 1 or not all(map(_importable, names)):
        raise CodecError("is a packed script with a damaged list of modules", hint="pack it again")
    return {**dict(zip(names, texts, strict=True)), MAIN: main}


def _assembled(packed: bytes, codec: str, form: Form, shown: str) -> bytes:
    if form == "safe":
        rest = SAFE.format(codec=codec, literal=base64.b85encode(packed).decode())
    else:
        literal = _escaped(base125.encode(packed))
        rest = DENSE.format(codec=codec, literal=literal, length=len(packed))
    rest = shown + rest
    return (HEADER.format(zlib.crc32(rest.encode())) + rest).encode("ascii")


def _smallest(payloads: list[bytes], *, with_brotli: bool) -> tuple[str, bytes]:
    """(compressor, stream)."""
    streams = [("lzma", lzma_alone(payload)) for payload in payloads]
    if with_brotli:
        streams += [("brotli", stream) for payload in payloads if (stream := brotli_stream(payload))]
    return min(streams, key=lambda each: len(each[1]))


def _imports_brotli(main: str) -> bool:
    """Whether the script cannot do without brotli: it imports it at its top, outside of `try` and `if`."""
    try:
        statements = ast.parse(main).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    plain = {alias.name for each in statements if isinstance(each, ast.Import) for alias in each.names}
    return "brotli" in plain | {
        each.module for each in statements if isinstance(each, ast.ImportFrom) and not each.level
    }


def _escaped(digits: bytes) -> str:
    """Digits as they stand between triple quotes: no three quotes in a row, none at the end."""
    text = digits.decode("ascii").replace('"""', '""\\"')
    return f'{text[:-1]}\\"' if text.endswith('"') else text


def _unescaped(text: str) -> bytes:
    return text.replace('\\"', '"').encode("ascii")


def _importable(name: str) -> bool:
    return len(name) <= 200 and all(part.isidentifier() for part in name.split("."))


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
