"""Which modules of the toolkit a script needs, found by reading its imports; nothing is imported or run."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec

from codec.errors import InputError

CARRIED = ("codec", "trainer", "verify")  # packages whose modules travel inside the submission
OURS = (*CARRIED, "packager", "pgolf")
DECLARED = ("numpy", "sentencepiece", "torch")  # what a carried module may expect to be installed


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A script with the modules it needs.

    modules: dotted name -> source text, every module after the ones it imports.
    requires: installed packages that the script and its modules import, sorted.
    """

    main: str
    modules: dict[str, str]
    requires: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Import:
    module: str
    line: int
    by_name: bool  # written as `from package.module import name`


def bundle(main: str, where: str) -> Bundle:
    """Follow `from package.module import name` from the script through the toolkit's modules.

    main: the script's text.  where: its file name, for messages.
    Raises: InputError for a syntax error, an import of the toolkit in another form, a module that does not
    exist, imports in a circle, or a carried module that needs a package no submission declares.
    """
    modules: dict[str, str] = {}
    requires: set[str] = set()
    _follow(main, where, [], modules, requires)
    return Bundle(main=main, modules=modules, requires=tuple(sorted(requires)))


def _follow(text: str, where: str, path: list[str], modules: dict[str, str], requires: set[str]) -> None:
    for found in _imports(text, where):
        top = found.module.partition(".")[0]
        line = f"{where}, line {found.line}"
        if top in OURS:
            _check_form(found, line)
            if found.module in path:
                raise InputError(f"imports in a circle: {' -> '.join([*path, found.module])}", where=line)
            if found.module not in modules:
                source = _source(found.module, line)
                _follow(source, found.module, [*path, found.module], modules, requires)
                modules[found.module] = source
        elif top not in sys.stdlib_module_names:
            if path and top not in DECLARED:
                raise InputError(
                    f"imports `{top}`, which a carried module must not need",
                    where=line,
                    hint=f"carried modules use the standard library and {', '.join(DECLARED)}",
                )
            requires.add(top)


def _imports(text: str, where: str) -> Iterator[_Import]:
    for node in ast.walk(_parsed(text, where)):
        if isinstance(node, ast.Import):
            yield from (_Import(alias.name, node.lineno, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise InputError(
                    "has a relative import, which a self-contained script cannot resolve",
                    where=f"{where}, line {node.lineno}",
                    hint="write `from package.module import name`",
                )
            yield _Import(node.module or "", node.lineno, all(alias.name != "*" for alias in node.names))


def _parsed(text: str, where: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = getattr(error, "msg", error)
        raise InputError(f"is not valid Python ({reason})", where=where + line) from None


def _check_form(found: _Import, line: str) -> None:
    top = found.module.partition(".")[0]
    if top not in CARRIED:
        raise InputError(
            f"imports `{found.module}`, which a submission cannot carry",
            where=line,
            hint=f"import from {', '.join(CARRIED)}",
        )
    if not found.by_name or found.module == top:
        raise InputError(
            f"imports `{found.module}` in a form that cannot be carried",
            where=line,
            hint="write `from package.module import name`",
        )


def _source(name: str, line: str) -> str:
    """A module's text by way of its loader, so that it works from a checkout, a wheel or a zip file.

    Only the packages' locations are looked up: importing `trainer` would cost a torch import.
    """
    top, *inner = name.split(".")
    spec, found = find_spec(top), top
    for part in inner:
        found = f"{found}.{part}"
        spec = PathFinder.find_spec(found, spec.submodule_search_locations) if spec else None
    if spec and spec.submodule_search_locations is not None:
        raise InputError(
            f"imports `{name}`, a package", where=line, hint=f"name its module: `from {name}.MODULE import`"
        )
    get_source = getattr(spec.loader, "get_source", None) if spec else None
    text = get_source(name) if get_source else None
    if text is None:
        raise InputError(f"imports `{name}`, which does not exist", where=line, hint="check the spelling")
    return str(text)
