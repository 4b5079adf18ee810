"""Shorter source text that behaves the same; python-minifier does the work, this module picks what is safe.

The settings, by LZMA bytes of whole submissions: docstrings and comments out (the largest gain), local names
short (5 to 9 % of the compressed script), literals not hoisted (hoisting costs 74 to 116 bytes after LZMA),
global names untouched (1 to 2 %, but modules import each other by name and errors print class names).
"""

import ast
import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

from python_minifier import UnstableMinification
from python_minifier import minify as shorten
from python_minifier.transforms.remove_annotations_options import RemoveAnnotationsOptions

from codec.errors import InputError

OLDEST = (3, 11)  # the output must parse on this Python
# Decorators that look at neither the names nor the annotations of what they decorate.  Any other one
# (triton.jit, custom_op) may compile the source, so a module that has one keeps its names and annotations.
HARMLESS = frozenset(
    {
        "abstractmethod",
        "cache",
        "cached_property",
        "classmethod",
        "contextmanager",
        "dataclass",
        "inference_mode",
        "lru_cache",
        "no_grad",
        "override",
        "property",
        "setter",
        "staticmethod",
        "wraps",
    }
)


@lru_cache(maxsize=64)
def minify(text: str, where: str) -> str:
    """Source text -> shorter source text with the same behaviour, valid on Python 3.11 and later.

    Class attributes keep their annotations: dataclasses read them.
    Raises: InputError when the text is not valid Python, or uses syntax newer than 3.11.
    """
    try:
        tree = ast.parse(text, feature_version=OLDEST)
        plain = not (_decorators(tree) - HARMLESS)
        annotations = RemoveAnnotationsOptions(
            remove_variable_annotations=plain,
            remove_return_annotations=plain,
            remove_argument_annotations=plain,
            remove_class_attribute_annotations=False,
        )
        with _own_builtins():
            short = shorten(
                ast.unparse(_flat(tree)),
                remove_annotations=annotations,
                remove_literal_statements=True,
                rename_locals=plain,
                rename_globals=False,
                hoist_literals=False,
                preserve_shebang=False,
            )
        ast.parse(short, feature_version=OLDEST)
    except (SyntaxError, ValueError, UnstableMinification) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = getattr(error, "msg", error)
        raise InputError(
            f"cannot be minified for Python {OLDEST[0]}.{OLDEST[1]} ({reason})",
            where=where + line,
            hint="correct it, or pack it with --no-minify",
        ) from None
    return short


@contextmanager
def _own_builtins() -> Iterator[None]:
    """Hides `_` among the builtins, where a console, doctest and gettext put it: the minifier renames no builtin.

    Without this the reference script took 3 bytes more in such a process.
    """
    hidden = {name: value for name, value in vars(builtins).items() if name == "_"}
    vars(builtins).pop("_", None)
    try:
        yield
    finally:
        vars(builtins).update(hidden)


def _decorators(tree: ast.Module) -> set[str]:
    """Last names of all decorators: `torch.no_grad()` -> no_grad."""
    names = set()
    for node in ast.walk(tree):
        for decorator in getattr(node, "decorator_list", ()):
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            names.add(target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "?"))
    return names


def _flat(tree: ast.Module) -> ast.Module:
    return cast(ast.Module, ast.fix_missing_locations(_FlatStrings().visit(tree)))


class _FlatStrings(ast.NodeTransformer):
    """f"{a['k']:.2f}" -> "{:.2f}".format(a['k']), only where a replacement field holds a string.

    Printed on Python 3.12 or later such a field may reuse the outer quotes, which 3.11 cannot read: 41 of 106
    published scripts do not start there for this reason.  It also keeps the bytes the same on every Python.
    """

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        if not _nests_a_string(node):
            return node
        arguments: list[ast.expr] = []
        template = self._template(node, arguments)
        return ast.Call(ast.Attribute(ast.Constant(template), "format", ast.Load()), arguments, [])

    def _template(self, node: ast.JoinedStr, arguments: list[ast.expr]) -> str:
        """The format string; the values are appended to `arguments` in the order str.format numbers them."""
        text = ""
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                arguments.append(self.visit(part.value))
                conversion = f"!{chr(part.conversion)}" if part.conversion > 0 else ""
                spec = part.format_spec and self._template(cast(ast.JoinedStr, part.format_spec), arguments)
                text += "{" + conversion + (f":{spec}" if spec else "") + "}"
            else:
                text += str(cast(Any, part).value).replace("{", "{{").replace("}", "}}")
        return text


def _nests_a_string(node: ast.JoinedStr) -> bool:
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            if any(_is_string(inner) for inner in ast.walk(part.value)):
                return True
            if part.format_spec and _nests_a_string(cast(ast.JoinedStr, part.format_spec)):
                return True
    return False


def _is_string(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes)
    return isinstance(node, ast.JoinedStr)
