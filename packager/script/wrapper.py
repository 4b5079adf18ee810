"""The self-extracting `train_gpt.py`: one ASCII file that holds a script and its modules, LZMA + base 85.

    # pgolf-pack 1 sha256=<payload> crc32=<literal>  what it is and how to read it
    imports; payload literal; loader                 fixed text, see HEAD and TAIL

The payload is UTF-8 text: name NUL source NUL ... main script (Python source cannot hold a NUL).  A wrapper
is valid only if it is exactly this text around the literal, so reading one says everything it will run.
"""

import base64
import hashlib
import lzma
import re
import zlib

from codec.errors import CodecError, InputError
from codec.storage.decompress import BeyondLimit, Mismatch, decompress

MAIN = "__main__"  # the script's key in what unwrap returns
MAX_PAYLOAD = 1 << 24  # 16 MB of source: a hundred times the largest published script
MEMORY_LIMIT = 1 << 26

MAGIC = b"# pgolf-pack 1 sha256="
HEAD = """\
# pgolf-pack 1 sha256={sha256} crc32={crc32:08x} read it: pgolf inspect --unwrap DIR train_gpt.py
import base64,linecache,lzma,sys,traceback,types
*P,S=lzma.decompress(base64.b85decode("{literal}")).decode().split("\\0")
"""
# Pickling a function of codec.decoder asks for a module `codec` too, hence the empty one.
# linecache (mtime None: checkcache never drops it) lets inspect.getsource, torch.compile and tracebacks see
# the source; the excepthook is there because Python before 3.13 prints uncaught errors from the file on disk.
TAIL = """\
for N,F in zip(P[::2],P[1::2]):
 K=N.split(".")[0];sys.modules.setdefault(K,types.ModuleType(K))
 M=sys.modules[N]=types.ModuleType(N);M.__file__=__file__+":"+N
 linecache.cache[M.__file__]=len(F),None,F.splitlines(True),M.__file__
 exec(compile(F,M.__file__,"exec",0,True),M.__dict__)
linecache.cache[__file__]=len(S),None,S.splitlines(True),__file__
if __name__=="__main__":sys.excepthook=traceback.print_exception
exec(compile(S,__file__,"exec",0,True))
"""
_FORM = re.compile(
    re.escape(HEAD + TAIL)
    .replace(r"\{sha256\}", "([0-9a-f]{64})")
    .replace(r"\{crc32:08x\}", "([0-9a-f]{8})")
    .replace(r"\{literal\}", r"([!#-\[\]-~]*)")
)  # no quote, no backslash: nothing ends it early


def wrap(main: str, modules: dict[str, str]) -> bytes:
    """A script and the modules it imports (dependencies first) -> the bytes of one file that runs alone.

    Each module is registered under its dotted name before the script runs; the script runs with the file's
    own `__name__` and `__file__`, so `python train_gpt.py`, torchrun, spawn and runpy.run_path all work.
    Raises: InputError for text that cannot be Python source, or a module name that cannot be imported.
    """
    for name, text in {**modules, MAIN: main}.items():
        if not _importable(name):
            raise InputError(f"`{name}` cannot be a module name")
        if "\0" in text or not _encodable(text):
            raise InputError("holds a NUL or a lone surrogate, which Python source cannot", where=name)
    if MAIN in modules:
        raise InputError(f"a module cannot be called {MAIN}")
    payload = "\0".join([*(part for pair in modules.items() for part in pair), main]).encode()
    if len(payload) > MAX_PAYLOAD:
        raise InputError(f"the script and its modules have {len(payload)} bytes, at most {MAX_PAYLOAD} fit")
    return _assembled(payload, _compressed(payload))


def unwrap(data: bytes) -> dict[str, str]:
    """The modules of a wrapper in order, then the script as `__main__`; nothing is executed.

    Exact inverse of `wrap`.  Memory stays bounded whatever the bytes say.
    Raises: CodecError for anything that is not exactly a wrapper of this version.
    """
    if not data.startswith(MAGIC):
        raise CodecError("is not a script packed by this toolkit")
    match = _FORM.fullmatch(data.decode("latin-1"))
    if not match:
        raise CodecError("is a packed script whose loader was altered or cut", hint="pack it again")
    digest, crc32, literal = match.groups()
    # Some bits of an LZMA stream change nothing in what it decodes to; the CRC sees those as well.
    payload = _decompressed(literal)
    if zlib.crc32(literal.encode()) != int(crc32, 16) or hashlib.sha256(payload).hexdigest() != digest:
        raise CodecError("is a packed script whose content does not match its checksums", hint="pack it again")
    try:
        *pairs, main = payload.decode().split("\0")
    except UnicodeDecodeError:
        raise CodecError("is a packed script whose content is not text", hint="pack it again") from None
    names, texts = pairs[::2], pairs[1::2]
    if len(names) != len(texts) or len({*names, MAIN}) != len(names) + 1 or not all(map(_importable, names)):
        raise CodecError("is a packed script with a damaged list of modules", hint="pack it again")
    return {**dict(zip(names, texts, strict=True)), MAIN: main}


def _assembled(payload: bytes, packed: bytes) -> bytes:
    literal = base64.b85encode(packed)
    digest, crc32 = hashlib.sha256(payload).hexdigest(), zlib.crc32(literal)
    return (HEAD.format(sha256=digest, crc32=crc32, literal=literal.decode()) + TAIL).encode()


def _compressed(payload: bytes) -> bytes:
    """The shortest of ten LZMA settings, in the smallest container that lzma.decompress detects.

    Text has no alignment, hence lp 0 and pb 0 or 1; how much context (lc) pays depends on the source.
    """
    window = max(4096, 1 << (len(payload) - 1).bit_length()) if payload else 4096
    settings = [
        {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window, "lc": lc, "lp": 0, "pb": pb}
        for lc in range(5)
        for pb in range(2)
    ]
    return min((lzma.compress(payload, lzma.FORMAT_ALONE, filters=[one]) for one in settings), key=len)


def _decompressed(literal: str) -> bytes:
    try:
        return decompress(base64.b85decode(literal), "lzma", MAX_PAYLOAD, memory=MEMORY_LIMIT)
    except BeyondLimit:
        raise CodecError(f"is a packed script of more than {MAX_PAYLOAD} bytes of source") from None
    except (ValueError, Mismatch) as error:
        raise CodecError(f"is a packed script that cannot be decompressed ({error})", hint="pack it again") from None


def _importable(name: str) -> bool:
    return len(name) <= 200 and all(part.isidentifier() for part in name.split("."))


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
