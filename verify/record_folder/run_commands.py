"""How a script is started, as far as its source and the logs tell: nothing is promised that they do not show."""

import ast
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from verify.claims.log_reader import Log
from verify.submission.byte_count import MAIN
from verify.submission.source_layers import parsed, read_source, unwrap

WORLD = 8  # processes: the challenge starts every script with `--nproc_per_node=8`


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCommands:
    """Shell lines; "" for what the script is not known to do."""

    train: str
    evaluate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interface:
    """flags: options on the command line.  needed: those it does not run without.  variables: of the environment."""

    flags: frozenset[str]
    needed: frozenset[str]
    variables: frozenset[str]


def run_commands(
    code: Mapping[str, bytes], logs: Sequence[Log], seed: int | None, environment: Mapping[str, str]
) -> RunCommands:
    """How to train with that seed, and how to score what was trained.

    A script that asks for --eval only scores; one that knows --eval does both.
    """
    known = _interface(read_source(code[MAIN]))
    data = " --data DATA" if "--data" in known.flags else ""
    settings = {**environment, **({"SEED": str(seed)} if "SEED" in known.variables else {})}
    assigned = "".join(f"{name}={shlex.quote(value)} " for name, value in settings.items())
    option = f" --seed {seed}" if "--seed" in known.flags else ""
    worlds = {log.settings.get("world_size", "") for log in logs}
    world = worlds.pop() if len(worlds) == 1 else ""
    processes = int(world) if world.isdecimal() else WORLD
    started = f"torchrun --standalone --nproc_per_node={processes} {MAIN}{option}{data}"
    return RunCommands(
        train="" if "--eval" in known.needed else assigned + started,
        evaluate=f"python {MAIN} --eval{data}" if "--eval" in known.flags else "",
    )


def _interface(source: str) -> _Interface:
    """What the script reads, that packed inside it included; the modules it carries take no options."""
    trees = [parsed(text) for text in (source, *(layer.text for layer in unwrap(source) if not layer.name))]
    nodes = [node for tree in trees if tree for node in ast.walk(tree)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and _name(node.func) == "add_argument"]
    flags = [(text, call) for call in calls for text in map(_text, call.args) if text.startswith("--")]
    return _Interface(
        flags=frozenset(text for text, _ in flags),
        needed=frozenset(text for text, call in flags if any(_is_required(each) for each in call.keywords)),
        variables=frozenset(_variables(nodes)),
    )


def _variables(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """`os.environ.get("X")`, `os.getenv("X")`, `os.environ["X"]`, whatever the module is called."""
    for node in nodes:
        if isinstance(node, ast.Call) and node.args and _name(node.func) in ("get", "getenv"):
            where = node.func.value if isinstance(node.func, ast.Attribute) else node.func
            if _name(where) == "environ" or _name(node.func) == "getenv":
                yield _text(node.args[0])
        elif isinstance(node, ast.Subscript) and _name(node.value) == "environ":
            yield _text(node.slice)


def _name(node: ast.AST) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


def _text(node: ast.AST) -> str:
    value = node.value if isinstance(node, ast.Constant) else ""
    return value if isinstance(value, str) else ""


def _is_required(keyword: ast.keyword) -> bool:
    """`required=True`, which minifying may write as `required=1` or `not 0`."""
    if keyword.arg != "required":
        return False
    try:
        return bool(ast.literal_eval(keyword.value))
    except ValueError:
        return True
