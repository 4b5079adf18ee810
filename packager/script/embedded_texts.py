"""Text files that a script keeps beside it while it is edited, and carries as literals when it is packed."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from codec.errors import InputError
from packager.script.imports import parsed


def with_texts(main: str, where: str, beside: Path | None, texts: Mapping[str, str]) -> str:
    """Replace every `Path(__file__).with_name("NAME").read_text()` by the text, as a literal.

    read_text may have an encoding.  A NAME that ends in .py stays: a script that reads code measures it.
    texts: NAME -> text, instead of the file in the folder `beside`.
    Raises: InputError for a NAME that is in neither, or a file that is not text.
    """
    data = main.encode()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = sorted(_reads(parsed(main, where)), key=lambda each: (each[0].lineno, each[0].col_offset))
    for node, name, encoding in reversed(found):
        text = texts[name] if name in texts else _read(beside, name, encoding, f"{where}, line {node.lineno}")
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        data = data[:begin] + repr(text).encode() + data[end:]
    return data.decode()


def _reads(tree: ast.Module) -> Iterator[tuple[ast.Call, str, str]]:
    """(expression, NAME, encoding)."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    attr="read_text",
                    value=ast.Call(
                        func=ast.Attribute(
                            attr="with_name",
                            value=ast.Call(
                                func=ast.Name(id="Path") | ast.Attribute(value=ast.Name(id="pathlib"), attr="Path"),
                                args=[ast.Name(id="__file__")],
                                keywords=[],
                            ),
                        ),
                        args=[ast.Constant(value=str(name))],
                        keywords=[],
                    ),
                ),
                args=[] | [ast.Constant()] as positional,
                keywords=[] | [ast.keyword(arg="encoding", value=ast.Constant())] as named,
            ) if not name.endswith(".py") and len(positional) + len(named) < 2:
                given = [*positional, *(each.value for each in named)]
                encoding = given[0].value if given and isinstance(given[0], ast.Constant) else None
                yield node, name, str(encoding or "utf-8")


def _read(beside: Path | None, name: str, encoding: str, line: str) -> str:
    file = (beside or Path()) / name
    if beside is None or not file.is_file():
        raise InputError(
            f"reads `{name}` beside the script, and there is no such file",
            where=line,
            hint="put it there: its text travels inside the packed script",
        )
    try:
        return file.read_text(encoding)
    except (LookupError, ValueError) as error:
        raise InputError(f"is not text ({error})", where=str(file)) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(file)) from None
