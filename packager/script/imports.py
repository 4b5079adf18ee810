"""The imports of a source, read from its syntax tree; nothing is imported or run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from codec.errors import InputError

MAX_SOURCE = 1 << 20  # characters: the field's largest script has 158,429, and a syntax tree takes 600 times as much


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module.  `import a.b` -> module "a.b"; `from ..a import b` -> module "a", names ("b",), level 2.

    optional: inside `try`, `if` or `with suppress(...)`, or named to import_module: the script may run without it.
    """

    module: str
    line: int
    names: tuple[str, ...] = ()
    level: int = 0
    optional: bool = False


def parsed(text: str, where: str) -> ast.Module:
    """The syntax tree.  Raises: InputError naming file and line."""
    if len(text) > MAX_SOURCE:
        raise InputError(f"has {len(text):,} characters, at most {MAX_SOURCE:,} are read as a script", where=where)
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise InputError(f"is not valid Python ({error.msg})", where=f"{where}, line {error.lineno}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"is not valid Python ({error})", where=where) from None


def imports(tree: ast.Module) -> Iterator[Import]:
    """Every import of a module that can run, in any depth; what stands under TYPE_CHECKING never does."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, optional = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (Import(module=each.name, line=node.lineno, optional=optional) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(each.name for each in node.names)
            yield Import(module=node.module or "", line=node.lineno, names=names, level=node.level, optional=optional)
        elif isinstance(node, ast.Call) and (name := _named_module(node)):
            yield Import(module=name, line=node.lineno, optional=True)
        optional = optional or isinstance(node, ast.Try | ast.TryStar | ast.If) or _suppresses(node)
        never = node.body if isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING" else []
        waiting += [(child, optional) for child in reversed([*ast.iter_child_nodes(node)]) if child not in never]


def _named_module(node: ast.Call) -> str:
    """The module of import_module("a.b") and __import__("a.b"), when it is written there."""
    first = node.args[0] if node.args else None
    if _last_name(node.func) in ("import_module", "__import__") and isinstance(first, ast.Constant):
        name = first.value
        if isinstance(name, str) and all(part.isidentifier() for part in name.split(".")):
            return name
    return ""


def _suppresses(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and any(
        isinstance(each.context_expr, ast.Call) and _last_name(each.context_expr.func) == "suppress"
        for each in node.items
    )


def _last_name(node: ast.expr) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))
