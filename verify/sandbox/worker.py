"""What runs inside the sandbox: load a submission by its own script, then answer with logits for the ids it is sent.

A process that `nursery` forked runs this when it has confined itself.  Messages go over private copies of stdin and
stdout (see `wire`); whatever the submission prints lands on stderr.  Nothing that is said here
decides a score: the held-out text stays with the parent, which sends windows of ids and adds up the nats itself.
"""

import ast
import hashlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch

from codec.errors import EnvironmentLacks, InputError, LimitError, PgolfError
from verify.sandbox import seed_adapter, wire
from verify.sandbox.audit_hook import Attempts
from verify.sandbox.installation import is_granted
from verify.sandbox.model_server import Served, adaptation, lacks
from verify.submission.source_layers import read_source, unwrap

TOOLKIT = ("codec", "packager", "pgolf", "trainer", "verify")
NAME = "pgolf_submission"  # not __main__: the script's own run must not start
OUT_OF_MEMORY = re.compile(r"(can't|cannot) allocate memory|out of memory|bad_alloc", re.IGNORECASE)
MAX_IDS = 1 << 30  # bytes of one request
PACKAGE = "carry the module, or name its package in requirements.txt"
FIX = "run it by itself: python -I train_gpt.py --eval"


class CarriedOnly(MetaPathFinder):
    """Finds the toolkit's names in the submission's folder or not at all: a submission carries what it imports.

    Of other packages it finds those that may be read; the rest is not installed as far as a script can see.
    """

    def __init__(self, folder: Path, granted: frozenset[str]) -> None:
        self.folder, self.granted = folder, granted | {str(folder)}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the usual finder, which this takes the place of; None for what may not be read."""
        top = name.partition(".")[0]
        if top not in TOOLKIT:
            spec = PathFinder.find_spec(name, path, target)
            return spec if path is not None or spec is None or is_granted(spec, self.granted) else None
        places = sys.path if path is None else path
        inside = [place for place in places if Path(place).resolve().is_relative_to(self.folder)]
        spec = PathFinder.find_spec(name, inside)
        if spec is None:
            raise ModuleNotFoundError(f"No module named '{name}', the submission does not carry it", name=name)
        return spec

    find_distributions = staticmethod(PathFinder.find_distributions)  # what importlib.metadata asks


def serve(missing: list[str], granted: frozenset[str]) -> None:
    """Load what the first message names, then answer until stdin ends; every failure is told before the process ends.

    missing: what the sandbox could not enforce, told before foreign code can say something else.  granted: files and
    folders that may be read; the toolkit's own are not among them.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    job, _ = wire.receive(requests)
    wire.send(answers, {"kind": "confined", "missing": missing})
    folder, later = Path(job["script"]).parent, 0
    attempts = Attempts(Path(job["scratch"]), folder, granted)
    try:
        later = _later_syntax(folder)
        _hide_toolkit(folder, granted)
        _serve(job, attempts, requests, answers)
    except (Exception, SystemExit) as error:  # the submission is foreign code: anything may come out of it
        traceback.print_exc()
        wire.send(answers, {"kind": "error", **_described(error, job, later), "attempts": attempts.seen})


def _serve(job: dict[str, Any], attempts: Attempts, requests: IO[bytes], answers: IO[bytes]) -> None:
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    loaded = _load(job, attempts)
    wire.send(
        answers,
        {
            "kind": "loaded",
            "state": _state(loaded.model),
            "length": loaded.length,
            "notes": [*loaded.notes],
            "lacks": lacks(loaded.model),
            **adaptation(loaded.model),
        },
    )
    served = Served(loaded.model, job["device"], loaded.again)
    while True:
        try:
            request, ids = wire.receive(requests, "int64", MAX_IDS)
        except EOFError:
            return
        if request["kind"] == "attempts":
            wire.send(answers, {"kind": "attempts", "attempts": attempts.seen})
        else:
            wire.send(answers, *served.answer(request, ids))


def _load(job: dict[str, Any], attempts: Attempts) -> seed_adapter.Loaded:
    """Run the script as a module and load by its `load`, else as one of the seed family."""
    script, artifact, device = Path(job["script"]), Path(job["artifact"]), job["device"]
    seed_adapter.install_stubs()
    os.environ.update(job["environment"])
    os.chdir(script.parent)
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script)]
    module = sys.modules[NAME] = ModuleType(NAME)
    module.__file__ = str(script)
    attempts.begin()
    exec(compile(script.read_bytes(), str(script), "exec"), module.__dict__)
    load = getattr(module, "load", None)
    if not callable(load):
        return seed_adapter.load(module, artifact, device)
    if job["stated"]:  # nobody saw that it would have one, so it got what scripts with `load` do not get
        raise InputError(
            "makes its `load` while it runs, and a run command states settings for it",
            hint="define `load` at the top of the script, and its settings in the script",
        )
    again = partial(load, str(artifact), device)
    model = again()
    if not callable(getattr(model, "logits", None)):
        raise InputError(
            f"`load` returned a {type(model).__name__} without `.logits(ids)`", hint="return a module that has it"
        )
    return seed_adapter.Loaded(model=model, again=again)


def _hide_toolkit(folder: Path, granted: frozenset[str]) -> None:
    """From here on the process looks as if the toolkit were not installed; we keep the functions we hold."""
    for name in [name for name in sys.modules if name.partition(".")[0] in TOOLKIT]:
        del sys.modules[name]
    own = CarriedOnly(folder, granted)
    sys.meta_path[:] = [own if finder is PathFinder else finder for finder in sys.meta_path]


def _later_syntax(folder: Path) -> int:
    """Line of the first f-string in the folder's sources, also packed ones, that needs Python 3.12; 0 without.

    Found before the script runs: a SyntaxError that it raises itself says nothing about its sources.
    """
    for path in sorted(folder.rglob("*.py")) if sys.version_info < (3, 12) else []:
        source = read_source(path.read_bytes())
        for text in (source, *(layer.text for layer in unwrap(source))):
            try:
                ast.parse(text)
            except SyntaxError as error:
                if "f-string" in str(error.msg):
                    return error.lineno or 1
            except (ValueError, RecursionError, MemoryError):
                continue
    return 0


def _described(error: BaseException, job: dict[str, Any], later: int) -> dict[str, str]:
    """class, message and hint of what the parent is to raise."""
    if isinstance(error, PgolfError):
        return {"class": type(error).__name__, "message": error.message, "hint": error.hint}
    text = f"{type(error).__name__}: {error}"[:500]
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(text)):
        return _as(
            LimitError,
            f"asked for more memory than the limit of {job['memory_bytes'] / 1e9:g} GB",
            "raise --memory-limit, or lower --batch",
        )
    if isinstance(error, SyntaxError) and later:
        this = ".".join(map(str, sys.version_info[:3]))
        return _as(
            EnvironmentLacks,
            f"line {later} needs Python 3.12 or later (an f-string that reuses its own quotes), this is {this}",
            "run pgolf verify with that Python",
        )
    hint = PACKAGE if isinstance(error, ModuleNotFoundError) else FIX
    return _as(InputError, f"the script failed with {text}", hint)


def _as(kind: type[PgolfError], message: str, hint: str) -> dict[str, str]:
    return {"class": kind.__name__, "message": message, "hint": hint}


def _state(model: Any) -> dict[str, Any]:
    """Per tensor of the loaded module: dtype, shape, sha256 of its bytes."""
    if not isinstance(model, torch.nn.Module):
        return {}
    return {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "sha256": hashlib.sha256(_bytes(tensor)).hexdigest(),
        }
        for name, tensor in model.state_dict().items()
    }


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
