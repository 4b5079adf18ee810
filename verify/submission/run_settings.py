"""The settings a script was run with, as the command in its README or log states them: NAME=value before python."""

import ast
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from codec.errors import InputError
from verify.submission.byte_count import MAIN
from verify.submission.source_layers import parsed, read_source, unwrap

ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=")
READ = 1 << 20  # characters of a file: the command stands at the top of a README and of a log
NAMES = ("README.md", "*.md", "*.log", "*.txt")
MOST, MOST_BYTES = 128, 4096  # settings that reach a script; records state up to some 40, in less than 1,000 bytes
LOAD = re.compile(r"^(?:async )?def load\b|^load\s*=", re.MULTILINE)


def settings(folder: Path) -> tuple[dict[str, str], str]:
    """(environment, name of the file that states it) of the first run command with assignments; ({}, "") without.

    Values that a shell would compute ($SEED) are left out.  `export` lines before the command count as well.

    Raises: InputError when a file cannot be read.
    """
    return stated([path for name in NAMES for path in sorted(folder.glob(name)) if path.is_file()])


def stated(files: Iterable[Path]) -> tuple[dict[str, str], str]:
    """The same of files, the first that states any."""
    for path in dict.fromkeys(files):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                found = _first_command(file.read(READ))
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
        if found:
            return found, path.name
    return {}, ""


def size(environment: Mapping[str, str]) -> int:
    """Bytes of settings, as lines NAME=value."""
    return sum(len(f"{name}={value}\n".encode()) for name, value in environment.items())


def fit(environment: Mapping[str, str]) -> bool:
    """Whether they are few and short enough to be settings."""
    return len(environment) <= MOST and size(environment) <= MOST_BYTES


def offers_load(code: Sequence[Path], main: Path) -> bool:
    """Whether the script, also one that is packed in main, defines or imports `load`, read without running it.

    code: all files that count: with `from x import *` it may be any of theirs.
    """
    source = read_source(main.read_bytes())
    texts = [source, *(layer.text for layer in unwrap(source) if not layer.name)]
    found = [_top_names(text) for text in texts]
    if any("*" in names for names in found):
        found += [_top_names(read_source(path.read_bytes())) for path in code if path.suffix == ".py"]
    return any("load" in names for names in found)


def _top_names(text: str) -> set[str]:
    """Names that the source gives to functions, classes, imports and values outside of functions and classes."""
    tree = parsed(text)
    if tree is None:
        return {"load"} if LOAD.search(text) else set()
    names, waiting = set[str](), list[ast.AST](tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            names |= {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
            waiting += ast.iter_child_nodes(node)
    return names


def _first_command(text: str) -> dict[str, str]:
    exported: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        words = _words(line)
        assigned = dict(_assignments(words))
        if words[:1] == ["export"]:
            exported |= assigned
        elif any(Path(word).name == MAIN for word in words) and (assigned or exported):
            return exported | assigned
    return {}


def _words(line: str) -> list[str]:
    """The words of a shell command, without the prompt or bullet before it; [] for what is none."""
    if "=" not in line and MAIN not in line:
        return []
    try:
        words = shlex.split(line.strip().strip("`"))
    except ValueError:
        return []
    while words and words[0] in ("$", ">", "-", "*", "env"):
        del words[0]
    return words


def _assignments(words: list[str]) -> Iterator[tuple[str, str]]:
    """Those before the program; a word that is neither an assignment nor `export` is the program."""
    for word in words[1:] if words[:1] == ["export"] else words:
        if not ASSIGNMENT.match(word):
            return
        name, _, value = word.partition("=")
        if "$" not in value:
            yield name, value
