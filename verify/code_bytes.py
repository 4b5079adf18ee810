"""Counts a submission's bytes from its files alone; what submission.json says is never used here."""

import ast
import base64
import binascii
import lzma
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from codec.errors import InputError

MAIN = "train_gpt.py"
CODE_SUFFIXES = {".py", ".pyi", ".pyx", ".c", ".cpp", ".cu", ".so", ".sh"}
KNOWN = {MAIN, "README.md", "submission.json", "requirements.txt", "ledger.json"}
MAX_SOURCE = 1 << 24  # 16 MB of unpacked source: the field's largest script has 158 kB
MAX_LAYERS = 4  # wrappers inside wrappers
LITERAL = 200  # characters; the shortest packed payload seen in the field has thousands


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteCount:
    """All in bytes, as the files lie on disk.

    import_closure: train_gpt.py and the local modules it imports.  all_code: every code file of the folder.
    computed_wrapped: train_gpt.py in an LZMA + base 85 wrapper, as records with readable source count it.
    judged_total: import_closure + artifact, the number held against `cap`.
    """

    main_file: int
    import_closure: int
    all_code: int
    computed_wrapped: int
    artifact: int
    judged_total: int
    cap: int

    def to_dict(self) -> dict[str, int]:
        """The fields, for JSON."""
        return asdict(self)


def count(folder: Path, artifact: Path, cap: int) -> ByteCount:
    """Count the submission `folder` whose weights are the file `artifact`.

    Raises: InputError as `files` and `import_closure`.
    """
    code = sum(path.stat().st_size for path in import_closure(folder))
    blob = artifact.stat().st_size
    return ByteCount(
        main_file=(folder / MAIN).stat().st_size,
        import_closure=code,
        all_code=sum(path.stat().st_size for path in files(folder) if path.suffix in CODE_SUFFIXES),
        computed_wrapped=_wrapped_bytes((folder / MAIN).read_bytes()),
        artifact=blob,
        judged_total=code + blob,
        cap=cap,
    )


def files(folder: Path) -> list[Path]:
    """Every file below the folder, sorted.

    Raises: InputError for a symbolic link or a special file: its bytes lie elsewhere.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(
                "is a link or special file, a submission holds plain files only",
                where=str(path),
                hint="copy the file itself into the folder",
            )
        if path.is_file():
            found.append(path)
    return found


def unexpected(folder: Path, artifact: Path) -> list[str]:
    """Relative names of files that are neither counted nor among those a submission usually holds."""
    counted = {artifact, *import_closure(folder)}
    usual = {path for path in folder.iterdir() if path.name in KNOWN or path.suffix == ".log"}
    return [path.relative_to(folder).as_posix() for path in files(folder) if path not in counted | usual]


def import_closure(folder: Path) -> list[Path]:
    """train_gpt.py and, transitively, the files of the folder that it imports by name, sorted.

    Read from the syntax tree; wrapped source is unpacked as data and read as well.  Nothing is executed.
    Raises: InputError when a file is missing or is not Python.
    """
    waiting, found = [folder / MAIN], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            if path.suffix == ".py":
                waiting += _imported_files(path, folder)
    return sorted(found)


def unwrap(source: str) -> list[str]:
    """Python sources packed in the literals of a self-extracting script, outermost first; [] if none."""
    layers: list[str] = []
    texts = [source]
    for _ in range(MAX_LAYERS):
        texts = [part for text in texts for literal in _literals(text) for part in _unpacked(literal)]
        layers += texts
    return layers


def _imported_files(path: Path, folder: Path) -> Iterator[Path]:
    try:
        source = path.read_bytes().decode()
        ast.parse(source)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (SyntaxError, ValueError) as error:
        raise InputError(f"is not Python source ({error})", where=str(path)) from None
    for text in [source, *unwrap(source)]:
        for node in ast.walk(_parsed(text) or ast.Module([], [])):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from _module_files(folder, alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = path.parents[node.level - 1] if 0 < node.level <= len(path.parents) else folder
                prefix = f"{node.module}." if node.module else ""
                for alias in node.names:  # `from a import b`: b may be a module
                    yield from _module_files(base, prefix + alias.name)


def _module_files(base: Path, dotted: str) -> Iterator[Path]:
    """The files that importing `dotted` from `base` would read: packages on the way, and the module."""
    place = base
    for part in dotted.split("."):
        yield from (path for path in (place / f"{part}.py", place / part / "__init__.py") if path.is_file())
        yield from (path for path in place.glob(f"{part}.*so") if path.is_file())
        place = place / part


def _literals(text: str) -> Iterator[bytes]:
    for node in ast.walk(_parsed(text) or ast.Module([], [])):
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str | bytes) and len(value) >= LITERAL:
            with suppress(UnicodeEncodeError):
                yield value.encode("latin-1") if isinstance(value, str) else value


def _unpacked(literal: bytes) -> list[str]:
    """The Python texts in one literal: base 85 or 64 or raw bytes, around any of the LZMA and zlib forms."""
    for packed in _decoded(literal):
        for data in _decompressed(packed):
            try:
                parts = data.decode().split("\0")  # our wrapper joins its modules with NUL
            except UnicodeDecodeError:
                continue
            if all(_parsed(part) for part in parts):
                return parts
    return []


def _decoded(literal: bytes) -> Iterator[bytes]:
    for decode in (base64.b85decode, lambda text: base64.b64decode(text, validate=True)):
        try:
            yield decode(literal)
        except (ValueError, binascii.Error):
            continue
    yield literal


def _decompressed(packed: bytes) -> Iterator[bytes]:
    limit = 1 << 26  # bytes of decoder memory
    lzma2 = {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 24}
    decoders = (
        lambda: lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=limit),
        lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[lzma2]),
        zlib.decompressobj,
    )
    for make in decoders:
        decoder = make()
        try:
            data = decoder.decompress(packed, MAX_SOURCE)
        except (lzma.LZMAError, zlib.error, EOFError):
            continue
        if decoder.eof and data:
            yield data


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _wrapped_bytes(source: bytes) -> int:
    if unwrap(source.decode()):
        return len(source)
    shell = 'import lzma,base64;exec(lzma.decompress(base64.b85decode("")))\n'
    packed = lzma.compress(source, lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME)
    return len(shell) + len(base64.b85encode(packed))
