"""Counts a submission's bytes from its files alone; what submission.json says is never used here."""

import ast
import base64
import lzma
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from codec.errors import InputError, PgolfError
from verify.submission.source_layers import parsed, read_source, unwrap

MAIN, SUMS = "train_gpt.py", "SHA256SUMS"
LARGEST = 1 << 30  # bytes of a file: 64 times the cap, so that one just over it is counted; sparse ones claim terabytes
CODE_SUFFIXES = {".py", ".pyi", ".pyx", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".so", ".sh"}
KNOWN = {MAIN, SUMS, "README.md", "submission.json", "requirements.txt", "ledger.json"}
# What an extension module's name may have behind the module's: nothing, the stable ABI, or a Python and a platform.
EXTENSION = re.compile(r"(\.abi3|\.cpython-3\d{1,2}[a-z]?-(x86_64|aarch64)-linux-(gnu|musl))?\.so")
ELF, ELF_HEADER = b"\x7fELF", 64  # first bytes, and how many every such file has
MOST_FILES = 256  # that count; a script that carries all of this toolkit has a third of it
MOST_ENTRIES = (
    512  # files and folders of all kinds: that one is there, its size and time can be seen by who knows its path
)
IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([\w.]+))", re.MULTILINE)
JUDGED = "import_closure"
WHY = (
    "what the script can run as it lies in the folder; records were also judged by the main file alone (leaves out "
    "modules it imports) or by a wrapper computed at run time (is not what was shipped)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteCount:
    """All in bytes, as the files lie on disk.

    import_closure: train_gpt.py and the local code it imports or opens by name.  all_code: every code file of the
    folder.  computed_wrapped: train_gpt.py in an LZMA + base 85 wrapper, as records with readable source count it.
    judged_total: import_closure + artifact, the number held against `cap`; `judged` and `why` say so.  Counted as code
    are also settings, the bytes of NAME=value lines that reach the script from a README or log, and names, what names
    of files say that the source does not.
    Source: the four ways in which records were counted, see docs/rules.md.
    """

    main_file: int
    import_closure: int
    all_code: int
    computed_wrapped: int
    artifact: int
    judged_total: int
    cap: int
    judged: str = JUDGED
    why: str = WHY
    settings: int = 0
    names: int = 0

    @property
    def shipped(self) -> int:
        """Code and artifact as files, which is what claims state."""
        return self.import_closure + self.artifact

    @property
    def others(self) -> str:
        """What the other ways of counting would say, when one of them lands on the other side of the cap."""
        over = self.judged_total > self.cap
        totals = {name: getattr(self, name) + self.artifact for name in ("main_file", "all_code", "computed_wrapped")}
        differ = [f"{name} {total:,}" for name, total in totals.items() if (total > self.cap) != over]
        return f"; counted otherwise: {', '.join(differ)}" if differ else ""

    def to_dict(self) -> dict[str, int | str]:
        """The fields, for JSON."""
        return asdict(self)


def count(folder: Path, artifact: Path, cap: int, settings: int = 0) -> ByteCount:
    """Count the submission `folder` whose weights are the file `artifact`; one that is not there has no bytes.

    settings: bytes of those that reach the script beside its files.  Raises: InputError as `files` and
    `import_closure`.
    """
    closure = import_closure(folder)
    code = sum(path.stat().st_size for path in closure)
    names = sum(len(path.name) - len(path.name.partition(".")[0]) for path in closure if path.suffix == ".so")
    blob = artifact.stat().st_size if artifact.exists() else 0
    return ByteCount(
        main_file=(folder / MAIN).stat().st_size,
        import_closure=code,
        all_code=sum(path.stat().st_size for path in files(folder) if path.suffix in CODE_SUFFIXES),
        computed_wrapped=_wrapped_bytes((folder / MAIN).read_bytes()),
        artifact=blob,
        judged_total=code + settings + names + blob,
        cap=cap,
        settings=settings,
        names=names,
    )


def files(folder: Path) -> list[Path]:
    """Every file below the folder, sorted.

    Raises: InputError for a symbolic link or a special file: its bytes lie elsewhere; for a file beyond LARGEST, and
    for more than MOST_ENTRIES.
    """
    found = []
    entries = sorted(islice(folder.rglob("*"), MOST_ENTRIES + 1))
    if len(entries) > MOST_ENTRIES:
        raise InputError(
            f"holds more than {MOST_ENTRIES} files and folders",
            where=str(folder),
            hint="copy what belongs to the submission into a folder of its own",
        )
    for path in entries:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(
                "is a link or special file, a submission holds plain files only",
                where=str(path),
                hint="copy the file itself into the folder",
            )
        if path.is_file():
            if (size := path.stat().st_size) > LARGEST:
                raise InputError(f"has {size:,} bytes, a submission's files have at most {LARGEST:,}", where=str(path))
            found.append(path)
    return found


def unexpected(folder: Path, artifact: Path) -> list[str]:
    """Relative names of files that are neither counted nor among those a submission usually holds."""
    counted = {artifact, *import_closure(folder)}
    usual = {path for path in folder.iterdir() if path.name in KNOWN or path.suffix == ".log"}
    return [path.relative_to(folder).as_posix() for path in files(folder) if path not in counted | usual]


def import_closure(folder: Path, main: str = MAIN) -> list[Path]:
    """The script `main` and, transitively, the files of the folder that it imports by name, sorted.

    Read from the syntax tree; wrapped source is unpacked as data and read as well.  Nothing is executed.
    Raises: InputError when a file is missing or is not Python, a module has several files or lies outside the folder,
    a shared object is none, and for more than MOST_FILES.
    """
    waiting, found = [folder / main], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            if path.suffix == ".py":
                waiting += _imported_files(path, folder)
            elif path.suffix == ".so":
                _check_shared_object(path)
    if len(found) > MOST_FILES:
        raise InputError(
            f"has {len(found):,} files of code, a submission's are at most {MOST_FILES}",
            where=str(folder),
            hint="put them into fewer modules",
        )
    return sorted(found)


def _check_shared_object(path: Path) -> None:
    """Refuse what only looks like one: its name would say something for free."""
    with path.open("rb") as file:
        head = file.read(ELF_HEADER)
    if not head.startswith(ELF) or len(head) < ELF_HEADER:
        raise InputError("is no shared object (ELF)", where=str(path), hint="build it for Linux, or remove it")


def _imported_files(path: Path, folder: Path) -> Iterator[Path]:
    try:
        source = read_source(path.read_bytes())
        layers = unwrap(source)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except PgolfError as error:
        error.where = error.where or str(path)
        raise
    _check_syntax(source, path)
    for text in (source, *(layer.text for layer in layers)):
        tree = parsed(text)
        if tree is None:  # written for a later Python, or not for this one
            for names in IMPORT.findall(text):
                yield from _module_files(folder, "".join(names))
            continue
        for node in ast.walk(tree):
            if text is source:
                _check_inside(node, path, folder)
            yield from _named_files(node, path, folder)


def _check_inside(node: ast.AST, path: Path, folder: Path) -> None:
    """Refuse `from ...module import name` with more dots than the file has folders around it."""
    if isinstance(node, ast.ImportFrom) and node.level > len(path.relative_to(folder).parts):
        raise InputError(
            f"line {node.lineno} imports from outside the submission's folder ({'.' * node.level}{node.module or ''})",
            where=str(path),
            hint="carry the module in the folder",
        )


def _check_syntax(source: str, path: Path) -> None:
    """Refuse what no Python can read; a later Python's syntax is left to whoever runs it."""
    if parsed(source) is None and not IMPORT.search(source):
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"is not Python source ({error})", where=str(path)) from None


def _named_files(node: ast.AST, path: Path, folder: Path) -> Iterator[Path]:
    """Code of the folder that a node imports, or names as text: `exec(open("model.py").read())` runs it as well."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _module_files(folder, alias.name)
    elif isinstance(node, ast.ImportFrom):
        inside = 0 < node.level <= len(path.relative_to(folder).parts)  # in a layer, more lead to other layers
        base = path.parents[node.level - 1] if inside else folder
        prefix = f"{node.module}." if node.module else ""
        for alias in node.names:  # `from a import b`: b may be a module
            yield from _module_files(base, prefix + alias.name)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and Path(node.value).suffix in CODE_SUFFIXES:
        named = Path(node.value)
        if len(node.value) < 200 and not named.is_absolute() and ".." not in named.parts and _is_file(folder / named):
            yield folder / named


def _module_files(base: Path, dotted: str) -> Iterator[Path]:
    """The files that importing `dotted` from `base` would read: packages on the way, and the module.

    Raises: InputError when one of them could be any of several files.
    """
    place = base
    for part in dotted.split("."):
        found = [path for path in (place / f"{part}.py", place / part / "__init__.py") if _is_file(path)]
        found += sorted(each for each in place.glob(f"{part}.*so") if EXTENSION.fullmatch(each.name[len(part) :]))
        if len(found) > 1:
            names = " and ".join(each.relative_to(base).as_posix() for each in found[:3])
            raise InputError(f"holds {names} for one module", where=str(base), hint="keep the one that is imported")
        yield from found
        place = place / part


def _is_file(path: Path) -> bool:
    """Also for a name that is longer than names can be."""
    try:
        return path.is_file()
    except OSError:
        return False


def _wrapped_bytes(source: bytes) -> int:
    if unwrap(read_source(source)):
        return len(source)
    shell = 'import lzma,base64;exec(lzma.decompress(base64.b85decode("")))\n'
    packed = lzma.compress(source, lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME)
    return len(shell) + len(base64.b85encode(packed))
