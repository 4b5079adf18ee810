"""The syntax tree of a script without what only its readers need: the same program in fewer words."""

import ast
from typing import Any, cast

from packager.script.watched_names import Watched, bound_names


def without_vars(tree: ast.Module) -> ast.Module:
    """The tree changed in place: `vars(x)` is `x.__dict__`, the same object.

    For the minifier `vars` may look up any name, so that it shortens none.  One such line, which all scripts of the
    field from April on have, cost one of them 1,200 of 14,200 compressed bytes.
    """
    if "vars" not in bound_names(tree):
        _Vars().visit(tree)
    return ast.fix_missing_locations(tree)


def plain_tree(tree: ast.Module, seen: Watched) -> ast.Module:
    """The tree changed in place: annotations that nothing reads are out, f-strings are as Python 3.11 reads them."""
    for step in (_FlatStrings(), _Annotations(seen)):
        step.visit(tree)
    if not any(isinstance(node, ast.arg | ast.AnnAssign) and node.annotation for node in ast.walk(tree)) and not any(
        getattr(node, "returns", None) for node in ast.walk(tree)
    ):
        tree.body = [node for node in tree.body if not _makes_annotations_lazy(node)] or [ast.Pass()]
    return ast.fix_missing_locations(tree)


class _Annotations(ast.NodeTransformer):
    """Takes away what no decorator reads: of parameters, results and variables, but not of class attributes."""

    def __init__(self, seen: Watched) -> None:
        self.seen, self.in_class = seen, False

    def visit(self, node: ast.AST) -> Any:
        if node in self.seen.definitions or self.seen.annotations_read:
            return node
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            return self._assignment(node)
        outside, self.in_class = self.in_class, self._inside(node)
        self.generic_visit(node)
        self.in_class = outside
        return node

    def _inside(self, node: ast.AST) -> bool:
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        return isinstance(node, ast.ClassDef) or (self.in_class and not function)

    def _assignment(self, node: ast.AnnAssign) -> ast.stmt:
        if self.in_class:
            return node
        self.generic_visit(node)
        if node.value is None:  # declares a local name: `x: int` alone has no other effect
            node.annotation = ast.Constant(0)
            return node
        return ast.Assign([node.target], node.value, None)


class _Vars(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "vars" and len(node.args) == 1 and not node.keywords:
            (argument,) = node.args
            if not isinstance(argument, ast.Starred):
                return ast.Attribute(argument, "__dict__", ast.Load())
        return node


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


def _makes_annotations_lazy(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and [each.name for each in node.names] == ["annotations"]
    )


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
