"""Settings of a script that its packed form shows in clear, because whoever evaluates it looks for them."""

import ast
from collections.abc import Iterable, Iterator

from codec.errors import UsageError
from packager.script.imports import parsed


def visible_constants(main: str, where: str, names: Iterable[str]) -> dict[str, str]:
    """NAME -> value as Python writes it, in the order asked for.

    A name is assigned a literal at the top level or in a class there (in any case: VOCAB_SIZE shows vocab_size = 1024),
    or is an environment variable with a literal default: os.environ.get("VOCAB_SIZE", 1024), os.getenv.

    Raises: UsageError for a name without such a value, or with several.
    """
    tree = parsed(main, where)
    found: dict[str, set[str]] = {}
    for name, value in [*_defaults(tree), *_assignments(tree)]:
        found.setdefault(name.upper(), set()).add(repr(value))
    return {name: _only(name, found.get(name.upper(), set()), where) for name in names}


def _only(name: str, values: set[str], where: str) -> str:
    if len(values) == 1:
        (value,) = values
        if value.isascii() and value.isprintable():
            return value
    reason = f"has {len(values)} values: {', '.join(sorted(values))}" if values else "has no literal value"
    raise UsageError(
        f"`{name}` {reason}, so it cannot be shown",
        where=where,
        hint="name a constant of the top level, or an environment variable with a default",
    )


def _assignments(tree: ast.Module) -> Iterator[tuple[str, object]]:
    for node in [*tree.body, *(each for part in tree.body if isinstance(part, ast.ClassDef) for each in part.body)]:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        if isinstance(value, ast.Constant):
            yield from ((each.id, value.value) for each in targets if isinstance(each, ast.Name))


def _defaults(tree: ast.Module) -> Iterator[tuple[str, object]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get") | ast.Attribute(attr="getenv"),
                args=[ast.Constant(value=str(name)), ast.Constant(value=value)],
            ):
                yield name, value
