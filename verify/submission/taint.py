"""Where held-out tokens go inside a script, as far as names tell: from `val_tokens` through assignments and calls.

Names, not values: every assignment of a function counts wherever it stands in it.  What is computed without gradients
(under no_grad or inference_mode) leads nowhere, so that evaluating during training is no finding.
"""

import ast
import re
from collections.abc import Iterator

VALIDATION = re.compile(
    r"^(val|valid|validation)_(tokens?|data|ids|seqs?|x|y|inputs?|targets?|stream|text|docs?|toks?)$"
)
COUNTS = {"numel", "size", "shape", "dtype", "device", "dim"}  # of tokens: how many, not which
FREE = {"no_grad", "inference_mode"}
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
ScopeNode = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef


class Flow:
    """scopes: the module and its functions.  tainted: for each, the names that hold something of held-out tokens."""

    def __init__(self, tree: ast.Module) -> None:
        self.scopes = scopes(tree)
        self.tainted: dict[ScopeNode, set[str]] = {scope: set() for scope in self.scopes}
        self._free = {scope: _gradient_free(scope) for scope in self.scopes}
        self._functions: dict[str, list[FunctionNode]] = {}
        for scope in self.scopes:
            if isinstance(scope, FunctionNode):
                self._functions.setdefault(scope.name, []).append(scope)
        before = -1
        while before != (now := sum(map(len, self.tainted.values()))):
            before = now
            for scope in self.scopes:
                self._assign(scope)
                self._call(scope)

    def sinks(self, scope: ScopeNode) -> Iterator[ast.Call]:
        """Calls that differentiate something of held-out tokens."""
        for call in differentiations(scope):
            function = call.func
            subject: list[ast.expr] = [*call.args, *(keyword.value for keyword in call.keywords)]
            if isinstance(function, ast.Attribute):
                subject.append(function.value)
            if call not in self._free[scope] and any(self._holds(scope, each) for each in subject):
                yield call

    def _assign(self, scope: ScopeNode) -> None:
        for node in own(scope):
            if node in self._free[scope]:
                continue
            for target, value in _assignments(node):
                if self._holds(scope, value):
                    self.tainted[scope] |= set(_names(target))

    def _call(self, scope: ScopeNode) -> None:
        """Arguments that hold held-out tokens make the parameters hold them."""
        for call in own(scope):
            if not isinstance(call, ast.Call) or call in self._free[scope]:
                continue
            method = isinstance(call.func, ast.Attribute)
            for function in self._functions.get(_called(call), []):
                names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
                names = names[1:] if method and names[:1] == ["self"] else names
                pairs = [*zip(names, call.args, strict=False)]
                pairs += [(keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg]
                self.tainted[function] |= {name for name, value in pairs if self._holds(scope, value)}

    def _holds(self, scope: ScopeNode, node: ast.expr) -> bool:
        if isinstance(node, ast.Attribute) and node.attr in COUNTS:
            return False
        if isinstance(node, ast.Call) and _called(node) in {"len", "range", *COUNTS}:
            return False
        if isinstance(node, ast.Name):
            return node.id in self.tainted[scope] or bool(VALIDATION.match(node.id))
        if isinstance(node, ast.Attribute) and VALIDATION.match(node.attr):
            return True
        return any(self._holds(scope, child) for child in _expressions(node))


def scopes(tree: ast.Module) -> list[ScopeNode]:
    """The module and all functions in it."""
    return [tree, *(node for node in ast.walk(tree) if isinstance(node, FunctionNode))]


def own(scope: ScopeNode) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the functions inside it."""
    waiting: list[ast.AST] = [*ast.iter_child_nodes(scope)]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, FunctionNode):
            waiting += ast.iter_child_nodes(node)


def differentiations(scope: ScopeNode) -> Iterator[ast.Call]:
    """Calls of `.backward()` and `autograd.grad()`."""
    for node in own(scope):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            attribute = node.func
            of_autograd = attribute.attr == "grad" and "autograd" in ast.unparse(attribute.value)
            if attribute.attr == "backward" or of_autograd:
                yield node


def _gradient_free(scope: ScopeNode) -> set[ast.AST]:
    """Nodes that run without gradients: the whole function when a decorator says so, else such `with` blocks."""
    if isinstance(scope, FunctionNode) and any(_mentions(each, FREE) for each in scope.decorator_list):
        return set(own(scope))
    found: set[ast.AST] = set()
    for node in own(scope):
        if isinstance(node, ast.With) and any(_mentions(item.context_expr, FREE) for item in node.items):
            found |= {inner for statement in node.body for inner in ast.walk(statement)}
    return found


def _assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.comprehension):
        yield node.target, node.iter
    elif isinstance(node, ast.withitem) and node.optional_vars:
        yield node.optional_vars, node.context_expr


def _names(target: ast.expr) -> Iterator[str]:
    """Names that an assignment fills: `x`, `x[i]`, `(x, y)`; not the index."""
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Subscript | ast.Starred):
        yield from _names(target.value)
    elif isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _names(element)


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        elif isinstance(child, ast.keyword | ast.comprehension):
            yield from _expressions(child)


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _mentions(node: ast.expr, names: set[str]) -> bool:
    return any(getattr(each, "attr", getattr(each, "id", "")) in names for each in ast.walk(node))
