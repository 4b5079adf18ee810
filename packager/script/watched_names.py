"""What in a script must keep its name or its annotations, because something reads it as it is written.

A decorator such as triton.jit or custom_op compiles the source of what it decorates, or reads its annotations.  Such
functions, and the names they read, stay as they are; the rest of the script may be shortened.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Decorators that look at neither the names nor the annotations of what they decorate.
HARMLESS = frozenset(
    {
        "abstractmethod",
        "asynccontextmanager",
        "cache",
        "cached_property",
        "classmethod",
        "compile",  # torch.compile reads bytecode
        "contextmanager",
        "custom_bwd",
        "custom_fwd",
        "dataclass",  # reads annotations of class attributes, which are kept everywhere
        "deleter",
        "disable",
        "enable_grad",
        "final",
        "inference_mode",
        "lru_cache",
        "no_grad",
        "once_differentiable",
        "overload",
        "override",
        "property",
        "record",
        "runtime_checkable",
        "setter",
        "staticmethod",
        "total_ordering",
        "unique",
        "wraps",
    }
)
# What compiles or inspects a function that it is given by name: `kernel = triton.jit(body)`.
COMPILERS = frozenset(
    {"autotune", "custom_op", "define", "heuristics", "impl", "infer_schema", "jit", "register_autograd"}
) | frozenset({"register_fake", "register_kernel", "register_vmap", "script", "singledispatch", "trace", "triton_op"})
FOLLOWING = frozenset({"script"})  # compiles the functions that its function calls as well
READERS = frozenset({"__annotations__", "annotation", "get_annotations", "get_type_hints", "return_annotation"})
NAMES_OF_FUNCTIONS = frozenset({"__name__", "__qualname__", "co_name", "co_varnames", "f_code", "f_locals"})
# With these a script may look up its own globals by name.
LOOKUPS = frozenset(
    {"__builtins__", "__import__", "__main__", "builtins", "dir", "eval", "exec", "fire", "globals"}
) | {
    "locals",
    "runpy",
    "vars",
}
LOADER = "load"  # `pgolf verify` calls it
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """definitions: functions and classes that stay as they are written; names: every name in them.

    global_names: of the script's top level that stay though it is shortened.  global_lookups: whether the script may
    look up its globals in ways that no analysis sees, so that all of them stay.  annotations_read: whether it reads
    annotations.
    """

    definitions: frozenset[ast.AST]
    names: frozenset[str]
    global_names: frozenset[str]
    global_lookups: bool
    annotations_read: bool


def watched(tree: ast.Module) -> Watched:
    """Read it from the tree of a whole module.

    At the top level these keep their names: classes (they are pickled and printed by name, and `pgolf verify` looks for
    GPT), `load`, what a string spells, and functions when the script asks for the name of one.
    """
    definitions = frozenset(_definitions(tree))
    names = {name for each in definitions for name in spelled(each)}
    used = bound_names(tree) | {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
    strings = {part for text in _strings(tree) for part in text.split(".") if part.isidentifier()}
    classes = {each.name for each in tree.body if isinstance(each, ast.ClassDef)}
    functions = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    named = any(isinstance(node, ast.Attribute) and _asks_for_a_name(node) for node in ast.walk(tree))
    kept = {*names, *strings, *classes, LOADER, *(functions if named else ())}
    annotations_read = any(_reads_annotations(node, classes) for node in ast.walk(tree))
    if _has_lazy_annotations(tree) and (annotations_read or "fields" in used):  # their text is read at run time
        kept |= {name for each in _annotations(tree, annotations_read) for name in spelled(each)}
    return Watched(
        definitions=definitions,
        names=frozenset(names),
        global_names=frozenset(kept),
        global_lookups=bool(used & (LOOKUPS | {"*"})) or _looks_up_modules(tree),
        annotations_read=annotations_read,
    )


def bound_names(tree: ast.AST) -> set[str]:
    """Names that a tree binds anywhere, `*` for a star import."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, Function):
            found.add(node.name)
    return found


def spelled(node: ast.AST) -> Iterator[str]:
    """Every name in a tree: read, bound, of parameters and of definitions."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.arg):
            yield each.arg
        elif isinstance(each, Function):
            yield each.name


def last_name(node: ast.expr) -> str:
    """torch.no_grad() -> no_grad."""
    target = node.func if isinstance(node, ast.Call) else node
    return str(getattr(target, "attr", getattr(target, "id", "?")))


def _definitions(tree: ast.Module) -> set[ast.AST]:
    """Decorated by what is not known to be harmless, or given to a compiler; and what the strictest of these call."""
    by_name: dict[str, list[Function]] = {}
    found: set[ast.AST] = set()
    following: list[ast.AST] = []
    given: dict[str, bool] = {}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            by_name.setdefault(node.name, []).append(node)
            decorators = {last_name(each) for each in node.decorator_list}
            if decorators - HARMLESS:
                found.add(node)
                following += [node] if decorators & FOLLOWING else []
        elif isinstance(node, ast.Call) and (last_name(node.func) in COMPILERS):
            follows = last_name(node.func) in FOLLOWING
            names = [each.id for each in _arguments(node) if isinstance(each, ast.Name)]
            given |= {name: follows or given.get(name, False) for name in names}
    for name, follows in given.items():
        for definition in by_name.get(name, []):
            found.add(definition)
            following += [definition] if follows else []
    top = {each.name: each for each in tree.body if isinstance(each, Function)}
    while following:
        new = [top[name] for name in {*spelled(following.pop())} & top.keys() if top[name] not in found]
        found.update(new)
        following += new
    return found


def _arguments(node: ast.Call) -> Iterable[ast.expr]:
    return [*node.args, *(each.value for each in node.keywords)]


def _strings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _annotations(tree: ast.Module, every: bool) -> Iterator[ast.expr]:
    """Of class attributes, or every one: those that are not taken away."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (each.annotation for each in node.body if isinstance(each, ast.AnnAssign))
        elif every:
            yield from (found for kind in ("annotation", "returns") if (found := getattr(node, kind, None)))


def _has_lazy_annotations(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


def _asks_for_a_name(node: ast.Attribute) -> bool:
    """Whether the name of a function may be read; `type(x).__name__` is that of a class."""
    of_class = last_name(node.value) in ("type", "__class__", "cls")
    return node.attr in NAMES_OF_FUNCTIONS and not of_class


def _reads_annotations(node: ast.AST, classes: set[str]) -> bool:
    """Whether annotations of functions may be read; those of class attributes are kept anyway."""
    if isinstance(node, ast.Attribute | ast.Name):
        return str(getattr(node, "attr", getattr(node, "id", ""))) in READERS - {"get_type_hints"}
    if isinstance(node, ast.Call) and last_name(node.func) == "get_type_hints":
        return not (node.args and isinstance(node.args[0], ast.Name) and node.args[0].id in classes | {"cls"})
    return False


def _looks_up_modules(tree: ast.Module) -> bool:
    """sys.modules, a module of LOOKUPS under another name, or the text `__main__` but in `__name__ == "__main__"`."""
    imported = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    systems = {alias.asname or alias.name for alias in imported if alias.name == "sys"}
    if LOOKUPS.intersection(alias.name.partition(".")[0] for alias in imported):
        return True
    compared = {
        id(each)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and last_name(node.left) == "__name__"
        for each in node.comparators
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "modules" and last_name(node.value) in systems:
            return True
        if isinstance(node, ast.ImportFrom) and not node.level and _from_lookup(node):
            return True
        if isinstance(node, ast.Constant) and node.value == "__main__" and id(node) not in compared:
            return True
    return False


def _from_lookup(node: ast.ImportFrom) -> bool:
    return node.module in LOOKUPS or (node.module == "sys" and "modules" in {alias.name for alias in node.names})
