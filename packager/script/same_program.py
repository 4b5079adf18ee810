"""Proof that two sources are the same program: their syntax trees are equal but for names, and names correspond.

What may differ: docstrings and other literals that stand alone, `pass`, imports joined in one statement, and names.
Every binding of one corresponds to exactly one binding of the other, in the same scope.  The second may begin a scope
with aliases (`A=len`, `B=parameter`) and use them for what they stand for.
"""

import ast
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

Binding = tuple[int, str]  # (number of the scope that holds it, name); scope 0 is the module, builtins included
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class DifferentError(Exception):
    """The sources are two programs; the message says where."""


def check_same(before: ast.Module, after: ast.Module) -> None:
    """Raises: DifferentError."""
    comparison = _Comparison(_module_names(before), _module_names(after))
    comparison.bodies(before.body, after.body, _Scope(0, before), _Scope(0, after))
    comparison.check_aliases()


@dataclass
class _Scope:
    """Names that a scope binds, and those that it takes from elsewhere.  number: the same in both programs."""

    number: int
    node: ast.AST
    parent: "_Scope | None" = None
    bound: set[str] = field(default_factory=set)
    module: set[str] = field(default_factory=set)  # declared global
    outer: set[str] = field(default_factory=set)  # declared nonlocal

    def __post_init__(self) -> None:
        _Binder(self).collect()

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    def resolve(self, name: str) -> Binding:
        scope: _Scope | None = self
        while scope is not None and scope.parent is not None:
            if name in scope.module:
                return 0, name
            if name in scope.bound and name not in scope.outer and (scope is self or not scope.is_class):
                return scope.number, name
            scope = scope.parent
        return 0, name


class _Binder(ast.NodeVisitor):
    """Finds what one scope binds, without what lies in scopes inside it."""

    def __init__(self, scope: _Scope) -> None:
        self.scope = scope

    def collect(self) -> None:
        node = self.scope.node
        if isinstance(node, _COMPREHENSIONS):
            for generator in node.generators:
                self.visit(generator.target)
            return
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            self.scope.bound |= {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
        body = node.body if not isinstance(node, ast.Lambda) else [node.body]  # type: ignore[attr-defined]
        for each in body:
            self.visit(each)

    def visit(self, node: ast.AST) -> None:
        bound = self.scope.bound
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound.add(name)
            case ast.Global(names=names):
                self.scope.module.update(names)
            case ast.Nonlocal(names=names):
                self.scope.outer.update(names)
            case ast.alias(name=name, asname=asname):
                bound.add(asname or name.partition(".")[0])
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
        if isinstance(node, _SCOPES):
            if not isinstance(node, ast.Lambda):
                bound.add(node.name)
            for each in _outside(node):
                self.visit(each)
        elif isinstance(node, _COMPREHENSIONS):
            self.visit(node.generators[0].iter)
            self._walrus(node)
        else:
            self.generic_visit(node)

    def _walrus(self, node: ast.AST) -> None:
        """`:=` inside a comprehension binds in the scope around it."""
        for each in ast.iter_child_nodes(node):
            if isinstance(each, ast.NamedExpr):
                self.scope.bound.add(each.target.id)
            if not isinstance(each, _SCOPES):
                self._walrus(each)


def _outside(node: ast.AST) -> list[ast.AST]:
    """The parts of a definition that are evaluated around it."""
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases, *node.keywords]
    arguments: ast.arguments = node.args  # type: ignore[attr-defined]
    parts: list[ast.AST | None] = [*getattr(node, "decorator_list", ()), *arguments.defaults, *arguments.kw_defaults]
    parts += [each.annotation for each in ast.walk(arguments) if isinstance(each, ast.arg)]
    return [each for each in (*parts, getattr(node, "returns", None)) if each is not None]


class _Comparison:
    def __init__(self, *bound: set[str]) -> None:
        self.bound = bound  # at the top level of each: all other names there are builtins, or of nobody
        self.scopes = 0
        self.forth: dict[Binding, Binding] = {}
        self.back: dict[Binding, Binding] = {}
        self.aliases: dict[Binding, Binding] = {}
        self.reads: Counter[Binding] = Counter()  # of the second program, the aliases' own statements not counted
        self.writes: Counter[Binding] = Counter()

    def check_aliases(self) -> None:
        """An alias stands for its target while both stay as they are, or when nothing else uses the target."""
        for alias, target in self.aliases.items():
            uses = self.reads[target] + self.writes[target]
            if uses and (self.writes[alias] or self.writes[target]):
                raise DifferentError(f"`{alias[1]}` and `{target[1]}` are both changed")

    def bodies(self, one: list[ast.stmt], two: list[ast.stmt], a: _Scope, b: _Scope) -> None:
        """Bodies of the same module, function or class."""
        one, two = _plain(one), _plain(two)
        lead = len(two) - len(one)
        if lead > 0:
            start = next((n for n, each in enumerate(two) if not _is_future(each)), 0)
            for each in two[start : start + lead]:
                self._alias(each, b)
            del two[start : start + lead]
        self.lists(one, two, a, b)

    def _alias(self, node: ast.stmt, scope: _Scope) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=target)) if not scope.is_class:
                self.aliases[scope.resolve(name)] = scope.resolve(target)
            case _:
                raise DifferentError(f"the statement `{ast.unparse(node)[:60]}` has no counterpart")

    def lists(self, one: Iterable[object], two: Iterable[object], a: _Scope, b: _Scope) -> None:
        one, two = [*one], [*two]
        if all(isinstance(each, ast.stmt) for each in (*one, *two)):
            one, two = _plain(one), _plain(two)  # type: ignore[arg-type]
        if len(one) != len(two):
            raise DifferentError(f"{len(one)} parts against {len(two)} in `{_text(one)}`")
        for x, y in zip(one, two, strict=True):
            self.parts(x, y, a, b)

    def parts(self, x: object, y: object, a: _Scope, b: _Scope) -> None:
        if isinstance(x, list) and isinstance(y, list):
            self.lists(x, y, a, b)
        elif isinstance(x, ast.AST) and isinstance(y, ast.AST):
            if type(x) is not type(y):
                raise DifferentError(f"`{_text(x)}` against `{_text(y)}`")
            self.nodes(x, y, a, b)
        elif type(x) is not type(y) or x != y or repr(x) != repr(y):  # repr: 0.0 and -0.0
            raise DifferentError(f"{x!r:.60} against {y!r:.60}")

    def nodes(self, x: ast.AST, y: ast.AST, a: _Scope, b: _Scope) -> None:
        match x, y:
            case ast.Name(), ast.Name():
                self.name(x.id, y.id, a, b, written=not isinstance(x.ctx, ast.Load))
                self.parts(x.ctx, y.ctx, a, b)
            case ast.alias(), ast.alias():
                self.parts(x.name, y.name, a, b)
                whole = "." in x.name
                self.parts(whole and x.asname is None, whole and y.asname is None, a, b)
                first = x.name.partition(".")[0]
                self.name(x.asname or first, y.asname or first, a, b, written=True)
            case (ast.Global() | ast.Nonlocal(), ast.Global() | ast.Nonlocal()):
                self.parts(len(x.names), len(y.names), a, b)
                for one, two in zip(x.names, y.names, strict=True):
                    self.name(one, two, a, b)
            case (ast.ExceptHandler(), ast.ExceptHandler()) | (ast.MatchAs(), ast.MatchAs()):
                self._named(x, y, "name", a, b)
            case ast.MatchStar(), ast.MatchStar():
                self._named(x, y, "name", a, b)
            case ast.MatchMapping(), ast.MatchMapping():
                self._named(x, y, "rest", a, b)
            case _ if isinstance(x, _SCOPES):
                self.definitions(x, y, a, b)
            case _ if isinstance(x, _COMPREHENSIONS):
                self.comprehensions(x, y, a, b)
            case _:
                self.fields(x, y, a, b)

    def _named(self, x: ast.AST, y: ast.AST, key: str, a: _Scope, b: _Scope) -> None:
        one, two = getattr(x, key), getattr(y, key)
        self.parts(one is None, two is None, a, b)
        if one is not None:
            self.name(one, two, a, b, written=True)
        self.fields(x, y, a, b, without={key})

    def fields(self, x: ast.AST, y: ast.AST, a: _Scope, b: _Scope, without: Iterable[str] = ("type_comment",)) -> None:
        for key in x._fields:
            if key not in without and key != "kind":
                self.parts(getattr(x, key, None), getattr(y, key, None), a, b)

    def definitions(self, x: ast.AST, y: ast.AST, a: _Scope, b: _Scope) -> None:
        self.lists(_outside(x), _outside(y), a, b)
        if not isinstance(x, ast.Lambda):
            self.name(x.name, y.name, a, b, written=True)  # type: ignore[attr-defined]
            self.parts(_arity(x, "decorator_list"), _arity(y, "decorator_list"), a, b)
        inside_a, inside_b = self._entered(x, a), self._entered(y, b)
        if isinstance(x, ast.ClassDef) and isinstance(y, ast.ClassDef):
            self.parts(_arity(x, "bases"), _arity(y, "bases"), a, b)
            self.bodies(x.body, y.body, inside_a, inside_b)
            return
        self._parameters(x, y, inside_a, inside_b, in_class=a.is_class)
        if isinstance(x, ast.Lambda) and isinstance(y, ast.Lambda):
            self.parts(x.body, y.body, inside_a, inside_b)
        else:
            self.bodies(x.body, y.body, inside_a, inside_b)  # type: ignore[attr-defined]

    def _entered(self, node: ast.AST, parent: _Scope) -> _Scope:
        """The two programs enter the same scopes in the same order, so a counter of entries numbers them alike."""
        self.scopes += 1
        return _Scope((self.scopes + 1) // 2, node, parent)

    def _parameters(self, x: ast.AST, y: ast.AST, a: _Scope, b: _Scope, *, in_class: bool) -> None:
        """Parameters that a call can name keep their names."""
        one: ast.arguments = x.args  # type: ignore[attr-defined]
        two: ast.arguments = y.args  # type: ignore[attr-defined]
        for key in ("posonlyargs", "args", "kwonlyargs", "defaults", "kw_defaults"):
            self.parts(_arity(one, key), _arity(two, key), a, b)
        self.parts([each is None for each in one.kw_defaults], [each is None for each in two.kw_defaults], a, b)
        for number, (p, q) in enumerate(zip(one.args, two.args, strict=True)):
            if p.arg != q.arg and not (in_class and number == 0 and not one.posonlyargs):
                raise DifferentError(f"parameter `{p.arg}` is called `{q.arg}`")
            self.name(p.arg, q.arg, a, b, declared=True)
        for p, q in zip(one.kwonlyargs, two.kwonlyargs, strict=True):
            self.parts(p.arg, q.arg, a, b)
            self.name(p.arg, q.arg, a, b, declared=True)
        rest = [*zip(one.posonlyargs, two.posonlyargs, strict=True), (one.vararg, two.vararg), (one.kwarg, two.kwarg)]
        for r, s in rest:
            self.parts(r is None, s is None, a, b)
            if r is not None and s is not None:
                self.name(r.arg, s.arg, a, b, declared=True)

    def comprehensions(self, x: ast.AST, y: ast.AST, a: _Scope, b: _Scope) -> None:
        first, second = x.generators[0], y.generators[0]  # type: ignore[attr-defined]
        self.parts(first.iter, second.iter, a, b)
        inside_a, inside_b = self._entered(x, a), self._entered(y, b)
        self.parts(len(x.generators), len(y.generators), a, b)  # type: ignore[attr-defined]
        self.fields(first, second, inside_a, inside_b, without={"iter"})
        for one, two in zip(x.generators[1:], y.generators[1:], strict=True):  # type: ignore[attr-defined]
            self.parts(one, two, inside_a, inside_b)
        self.fields(x, y, inside_a, inside_b, without={"generators"})

    def name(self, one: str, two: str, a: _Scope, b: _Scope, *, written: bool = False, declared: bool = False) -> None:
        """declared: a parameter, whose value an alias may take over."""
        p, q = a.resolve(one), b.resolve(two)
        if not declared:
            (self.writes if written else self.reads)[q] += 1
        q = self.aliases.get(q, q)
        if self.forth.setdefault(p, q) != q or self.back.setdefault(q, p) != p:
            raise DifferentError(f"`{one}` is called `{two}`, and elsewhere otherwise")
        if p[0] == 0 and p != q and not (p[1] in self.bound[0] and q[1] in self.bound[1]):
            raise DifferentError(f"`{one}`, which is not of this module, is called `{two}`")
        if one != two and (a.is_class and p[0] == a.number):
            raise DifferentError(f"attribute `{one}` of a class is called `{two}`")


def _module_names(tree: ast.Module) -> set[str]:
    declared = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    return _Scope(0, tree).bound | declared


def _plain(body: list[ast.stmt]) -> list[ast.stmt]:
    """Without literals that stand alone and `pass`, and every import a statement of its own."""
    found: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.Import):
            found += [ast.Import([each]) for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [ast.ImportFrom(node.module, [each], node.level) for each in node.names]
        elif not isinstance(node, ast.Pass) and not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is not ...
        ):
            found.append(node)
    return found


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _arity(node: ast.AST, key: str) -> int:
    return len(getattr(node, key))


def _text(node: object) -> str:
    parts = node if isinstance(node, list) else [node]
    return "; ".join(ast.unparse(each) if isinstance(each, ast.AST) else repr(each) for each in parts[:2])[:60]
