"""What a reader should look at first: a static scan of a submission's sources.  It proves nothing, either way.

Every hit has file, line and the line's text.  Known to miss: updates without backward(), state carried
from one evaluation into the next, anything shared between the rows of a batch, conditions on the target inside native
code, and whatever a name does not tell.  The audit decides what a scorer does; this only says where to read.

Source: the checklist of the challenge's reviewers (line-numbered findings on head commits, April 2026).
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from codec.errors import PgolfError
from verify.submission.folder import Submission
from verify.submission.source_layers import LOADER, parsed, read_source, unread, unwrap
from verify.submission.taint import Flow, differentiations, own, scopes

MOST = 50  # hits of one rule that are kept
BLOB = 1000  # characters of a literal without blanks; the longest name or path has a tenth of it
LINE = 40  # characters; a payload that is broken into lines has 76 in each
NETWORK = {
    *("socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "telnetlib"),
    *("xmlrpc", "websocket", "websockets", "paramiko", "boto3", "gdown", "wandb", "huggingface_hub", "datasets"),
}


class Kind(NamedTuple):
    """Modules whose import is a hit."""

    rule: str
    what: str
    modules: set[str]


IMPORTS = (
    Kind(rule="triage.network", what="imports a network client", modules=NETWORK),
    Kind(rule="triage.process", what="imports what starts processes", modules={"subprocess", "multiprocessing", "pty"}),
    Kind(
        rule="triage.pickle",
        what="imports a format that can run code when it is read",
        modules={"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"},
    ),
    Kind(
        rule="triage.native",
        what="imports native code, which this scan cannot read",
        modules={"ctypes", "cffi", "torch.utils.cpp_extension", "numba", "cython"},
    ),
)
LAUNCHER = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"}
OS_PROCESSES = re.compile(r"^(system|popen|fork|forkpty|exec\w*|spawn\w*|posix_spawn\w*|kill|killpg)$")
READERS = {"open", "load", "fromfile", "memmap", "loadtxt", "read_text", "read_bytes", "read_csv", "read_parquet"}
OWN_FILES = re.compile(r"(val|tokenizer|\.model$|\.vocab$|\.ptz$|final_model|model\.bin|\.log$|\.txt$|^/dev/|^/proc/)")
TARGET = re.compile(r"^(y|tgt|target|gold|label|next_tok)(s|en|ens|_.*)?$")


DYNAMIC = "triage.dynamic"


class Hit(NamedTuple):
    """rule: its id.  line: 1 for the first.  what: the reason in a few words."""

    rule: str
    line: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A hit in a submission.  file: name of the source, with the layer unpacked from it.  source: the line's text."""

    rule: str
    what: str
    file: str
    line: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Hits by file and line.  lines: how many were read.  unread: sources that this Python cannot parse."""

    hits: tuple[Located, ...]
    lines: int
    unread: int


def scan_submission(submission: Submission) -> Scan:
    """Scan the code that counts, also what is packed inside it; nothing is executed."""
    return scan_code(submission.folder, submission.code)


def scan_code(folder: Path, code: Iterable[Path]) -> Scan:
    """The same of a folder and the files of code in it."""
    found: list[Located] = []
    lines = unread = 0
    for path in (path for path in code if path.suffix == ".py"):
        name = path.relative_to(folder).as_posix()
        for place, text in _sources(path, name):
            hits = scan(text)
            if hits and place.endswith(LOADER):  # it runs the other layers, which are scanned too
                hits = [hit for hit in hits if hit.rule != DYNAMIC]
            unread += hits is None
            lines += text.count("\n") + 1
            found += [_located(hit, place, text) for hit in hits or []]
    return Scan(hits=tuple(found), lines=lines, unread=unread)


def scan(text: str) -> list[Hit] | None:
    """The hits in one source, by line, at most MOST of a rule; None when this Python cannot parse it."""
    tree = parsed(text)
    if tree is None:
        return None
    rules = (_training, _masks, _hashes, _imports, _calls, _environment, _blobs)
    try:
        hits = sorted({hit for rule in rules for hit in rule(tree)}, key=lambda hit: (hit.line, hit.rule))
    except RecursionError:  # an expression nested a thousand deep
        return None
    if any(hit.rule == DYNAMIC for hit in hits) and unwrap(text):  # a wrapper runs its layers, which are scanned too
        hits = [hit for hit in hits if hit.rule != DYNAMIC]
    counts = Counter[str]()
    return [hit for hit in hits if counts.update([hit.rule]) or counts[hit.rule] <= MOST]


def _sources(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """(where, text) of a file and of the layers packed in it."""
    try:
        source = read_source(path.read_bytes())
        layers = unwrap(source)
    except PgolfError as error:
        error.where = error.where or str(path)
        raise
    yield name, source
    for layer in layers:
        yield f"{name} unpacked{f', {layer.name}' if layer.name else ''}", layer.text


def _located(hit: Hit, place: str, text: str) -> Located:
    lines = text.splitlines()
    excerpt = lines[hit.line - 1].strip()[:100] if hit.line <= len(lines) else ""
    return Located(rule=hit.rule, what=hit.what, file=place, line=hit.line, source=excerpt)


def _training(tree: ast.Module) -> Iterator[Hit]:
    """Held-out tokens that are differentiated, and whether a guard keeps the last chunk out."""
    flow = Flow(tree)
    for scope in flow.scopes:
        sinks = sorted(call.lineno for call in flow.sinks(scope))
        for line in sinks:
            yield Hit(
                rule="triage.val-training",
                line=line,
                what="held-out tokens reach a gradient; legal only after their score is fixed",
            )
        if sinks and not any(_is_last_guard(node) for node in own(scope)):
            yield Hit(
                rule="triage.last-chunk",
                line=sinks[0],
                what="training on held-out tokens without a guard for the last chunk",
            )


def _is_last_guard(node: ast.AST) -> bool:
    """`is_last_chunk`, `== num_chunks - 1`, `range(len(chunks) - 1)`; a learning rate divides by such a number too."""
    if isinstance(node, ast.Name | ast.arg) and "last" in getattr(node, "id", getattr(node, "arg", "")):
        return True
    sides: list[ast.expr] = []
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "range":
        sides = node.args
    return any(
        isinstance(side, ast.BinOp)
        and isinstance(side.op, ast.Sub)
        and re.search(r"chunk|len\(", ast.unparse(side.left))
        for side in sides
    )


def _masks(tree: ast.Module) -> Iterator[Hit]:
    """A loss mask over the region that is scored, `mask[i, s:wlen]`, where something is optimized under it."""
    for scope in scopes(tree):
        if any(True for _ in differentiations(scope)):
            for node in own(scope):
                for target in node.targets if isinstance(node, ast.Assign) else []:
                    if (
                        isinstance(target, ast.Subscript)
                        and "mask" in ast.unparse(target.value)
                        and _from_start(target)
                    ):
                        yield Hit(
                            rule="triage.scored-mask",
                            line=target.lineno,
                            what="a mask that selects the scored positions for training",
                        )


def _from_start(target: ast.Subscript) -> bool:
    parts = target.slice.elts if isinstance(target.slice, ast.Tuple) else [target.slice]
    last = parts[-1]
    return isinstance(last, ast.Slice) and last.lower is not None and ast.unparse(last.lower) != "0"


def _hashes(tree: ast.Module) -> Iterator[Hit]:
    """The target inside a hash key: the probability of one token only is then looked up."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            product = any(isinstance(each, ast.Mult) for each in ast.walk(node.left))
            mixes = isinstance(node.op, ast.BitXor) or (isinstance(node.op, ast.Mod | ast.BitAnd) and product)
        else:
            mixes = isinstance(node, ast.Call) and "bitwise_xor" in ast.unparse(node.func)
        if isinstance(node, ast.expr) and mixes and any(TARGET.match(name) for name in _identifiers(node)):
            yield Hit(rule="triage.target-hash", line=node.lineno, what="the target is part of a hash key")


def _identifiers(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name | ast.Attribute):
            yield getattr(each, "attr", getattr(each, "id", ""))


def _imports(tree: ast.Module) -> Iterator[Hit]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in _imported(node):
                parents = {name, name.partition(".")[0], name.rpartition(".")[0]}
                yield from (Hit(kind.rule, node.lineno, kind.what) for kind in IMPORTS if parents & kind.modules)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Dotted names; urllib.parse takes addresses apart and calls nobody."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module and not node.level else []
    return [name for name in names if not name.startswith("urllib.parse")]


def _calls(tree: ast.Module) -> Iterator[Hit]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
        owner, _, name = function.rpartition(".")
        flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if owner == "os" and OS_PROCESSES.match(name):
            yield Hit(rule="triage.process", line=node.lineno, what="starts or signals a process")
        if (name == "load" and flags.get("weights_only") == "False") or flags.get("allow_pickle") == "True":
            yield Hit(rule="triage.pickle", line=node.lineno, what="opens a pickle without limits")
        if function in ("exec", "eval", "__import__"):
            yield Hit(rule="triage.dynamic", line=node.lineno, what="runs code that is made at run time")
        if name in READERS and (path := _constant_path(node)) and not OWN_FILES.search(path):
            yield Hit(
                rule="triage.reads", line=node.lineno, what="reads a file beyond artifact, tokenizer and held-out text"
            )


def _constant_path(call: ast.Call) -> str:
    """The path a call reads, where it stands in the source: `open("x")`, `Path("x").read_bytes()`; "" for writing."""
    inner = call.func.value if isinstance(call.func, ast.Attribute) else None
    where = inner.args if isinstance(inner, ast.Call) and "Path" in ast.unparse(inner.func) else call.args
    modes = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    if any(isinstance(mode, ast.Constant) and re.search("[wax]", str(mode.value)) for mode in modes):
        return ""
    first = where[0].value if where and isinstance(where[0], ast.Constant) else ""
    return first if isinstance(first, str) else ""


def _environment(tree: ast.Module) -> Iterator[Hit]:
    """Settings read inside functions, each; the usual block of settings of a class or module as one."""
    for scope in scopes(tree):
        launcher = {id(place) for node in own(scope) for place, name in _environment_read(node) if name in LAUNCHER}
        places = [node for node in own(scope) if isinstance(node, ast.Attribute) and _is_environment(node)]
        reads = sorted({place.lineno for place in places if id(place) not in launcher})
        if isinstance(scope, ast.Module) and len(reads) > 1:
            what = f"reads {len(reads)} settings from the environment, up to line {reads[-1]}"
            yield Hit(rule="triage.environment", line=reads[0], what=what)
        else:
            yield from (Hit(rule="triage.environment", line=line, what="reads the environment") for line in reads)


def _is_environment(node: ast.Attribute) -> bool:
    return ast.unparse(node) in ("os.environ", "os.getenv")


def _environment_read(node: ast.AST) -> Iterator[tuple[ast.AST, Any]]:
    """(the `os.environ` or `os.getenv` in it, the name that is read) of one read whose name is written out."""
    match node:
        case ast.Call(func=ast.Attribute(value=place, attr="get"), args=[ast.Constant(value=name), *_]):
            yield place, name
        case ast.Call(func=place, args=[ast.Constant(value=name), *_]):
            yield place, name
        case ast.Subscript(value=place, slice=ast.Constant(value=name)):
            yield place, name
        case ast.Compare(left=ast.Constant(value=name), comparators=[place]):
            yield place, name


def _blobs(tree: ast.Module) -> Iterator[Hit]:
    """Long literals that nobody can read and that hold no source."""
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(value, str | bytes) or len(value) < BLOB or not isinstance(node, ast.expr):
            continue
        if isinstance(value, str) and any(len(word) < LINE for word in value.split()[:-1]):
            continue  # prose, a table, a help text
        text = repr(value)
        if not unwrap(text):
            reason = "of " + "; of ".join(unread(text)) if unread(text) else "that is no source"
            yield Hit(rule="triage.blob", line=node.lineno, what=f"a literal of {len(value):,} characters {reason}")
