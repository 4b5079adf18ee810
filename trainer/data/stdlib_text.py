"""Text that every Python carries: docstrings, comments and help topics of its standard library.

English prose about programming, a few megabytes, and nothing to download: enough to show the pipeline.
"""

import ast
import io
import sysconfig
import tokenize
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from codec.errors import EnvironmentLacks
from codec.progress import Bar, silent_bar

# Tests are not shipped everywhere, encodings/ are tables of character names, the rest is not the library.
SKIPPED = frozenset({"test", "tests", "idle_test", "encodings", "site-packages", "dist-packages"})


def stdlib_documents(bar: Bar = silent_bar) -> list[str]:
    """One document per module and help topic of the running interpreter, sorted by name.

    Paragraphs that repeat (licences, inherited docstrings) are kept only where they occur first.

    Raises: EnvironmentLacks when the standard library carries no source text.
    """
    seen: set[str] = set()
    documents = []
    for _, text in sorted([*_modules(bar), *_topics()]):
        paragraphs = []
        for paragraph in filter(None, (" ".join(part.split()) for part in text.split("\n\n"))):
            if paragraph not in seen:
                seen.add(paragraph)
                paragraphs.append(paragraph)
        if paragraphs:
            documents.append("\n\n".join(paragraphs))
    if len(documents) < 2:
        raise EnvironmentLacks(
            "this Python carries no source text of its standard library", hint="give text files instead"
        )
    return documents


def module_text(source: str) -> str:
    """The docstrings and whole-line comments of a module in source order, blank lines between paragraphs.

    Raises: SyntaxError, tokenize.TokenError, ValueError for text that is not Python.
    """
    pieces = [*_docstrings(source), *_comments(source)]
    return "\n\n".join(text for _, text in sorted(pieces))


def _docstrings(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of each run of neighbouring comment lines; a bare `#` separates paragraphs."""
    start, last, lines = 0, -1, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type != tokenize.COMMENT or token.line[:column].strip():
            continue
        text = token.string.lstrip("#!").strip()
        if row != last + 1:
            if lines:
                yield start, "\n".join(lines)
            start, lines = row, []
        lines.append(text if any(map(str.isalpha, text)) else "")  # rulers such as "# -----" are no text
        last = row
    if lines:
        yield start, "\n".join(lines)


def _modules(bar: Bar) -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    names = {path: path.relative_to(root) for path in root.rglob("*.py")}
    kept = {path: name.as_posix() for path, name in names.items() if SKIPPED.isdisjoint(name.parts[:-1])}
    with bar("standard library", len(kept)) as progress:
        for done, (path, name) in enumerate(kept.items()):
            progress(done, name)
            try:
                with tokenize.open(path) as file:
                    yield name, module_text(file.read())
            except (SyntaxError, tokenize.TokenError, ValueError, OSError):
                continue  # templates and deliberately broken examples
        progress(len(kept), "")


def _topics() -> Iterator[tuple[str, str]]:
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions package it separately
        return
    for name, text in topics.items():
        yield f"topics/{name}", text
