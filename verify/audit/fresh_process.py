"""One run of a scorer in a process of its own, with what it opened and whom it called while it ran.

The watch is Python's audit hook: it sees what goes through the interpreter, not what native code does by itself.  It is
for scorers whose code one trusts; foreign code belongs into the sandbox.
"""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codec.errors import InputError, LimitError, PgolfError
from verify import rules  # noqa: F401  its table is read before the watch begins
from verify.audit.trace import Trace, trace
from verify.sandbox.audit_hook import NETWORK, PROCESSES
from verify.scoring.scorer import Scorer

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from verify.audit.fresh_process import run_jobs; run_jobs()"
ROOT = Path(__file__).resolve().parents[2]
# Links undone, as in the paths they are compared with: an environment may be a link.
INTERPRETER = (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), ROOT)
MODULE = (".py", ".pyc", ".so")  # what imports open, as long as it lies in one of these folders


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerJob:
    """What to run.  scorer: `file.py:NAME` or `module:NAME`, NAME being a scorer or a function that makes one.

    arguments: for that function, strings.  allowed: files that may be opened, such as the artifact.
    """

    scorer: str
    arguments: tuple[str, ...] = ()
    allowed: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """trace: what the run committed.  events: files beyond the allowed, sockets and programs that it reached for.

    watch: who looked.  missing: what could not be watched or prevented.
    """

    trace: Trace
    events: tuple[str, ...]
    watch: str = "Python's audit hook"
    missing: tuple[str, ...] = ()


def find_scorer(name: str, arguments: Sequence[str] = ()) -> Scorer:
    """The scorer of an ScorerJob; its code runs in this process.

    Raises: InputError when there is none of this name, or it is none.
    """
    module, _, attribute = name.rpartition(":")
    try:
        found = getattr(load_module(module), attribute)
        scorer: Scorer = found if hasattr(found, "run") and not isinstance(found, type) else found(*arguments)
    except Exception as error:  # it runs code that may fail in any way
        message = f"cannot be loaded ({type(error).__name__}: {error})"
        raise InputError(message[:500], where=name, hint="name it FILE.py:NAME") from error
    if not callable(getattr(scorer, "run", None)) or not isinstance(getattr(scorer, "vocab_size", None), int):
        raise InputError(
            "is no scorer: it has no run() or no vocab_size", where=name, hint="see verify/scoring/scorer.py"
        )
    return scorer


def observe(
    jobs: Sequence[ScorerJob],
    tokens: np.ndarray,
    *,
    batch: int,
    ranks: int = 1,
    folder: Path | None = None,
    time_limit: float = 600.0,
) -> list[Observation]:
    """Run each scorer once over tokens, all in one fresh process.  folder: where it is started.

    Raises: InputError when a scorer fails or the process dies; LimitError after time_limit seconds.
    """
    with tempfile.TemporaryDirectory(prefix="pgolf-audit-") as scratch:
        np.save(Path(scratch) / "tokens.npy", tokens)
        job = {
            "scorers": [
                {**_plain(each), "out": str(Path(scratch) / f"{number}.npz")} for number, each in enumerate(jobs)
            ],
            "tokens": str(Path(scratch) / "tokens.npy"),
            "batch": batch,
            "ranks": ranks,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-B", "-c", BOOT, str(ROOT)],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                cwd=folder,
                timeout=time_limit,
            )
        except subprocess.TimeoutExpired:
            raise LimitError(
                f"took longer than {time_limit:g} s in a fresh process", hint="audit fewer tokens"
            ) from None
        reports = [json.loads(line) for line in done.stdout.splitlines()]
        failed = next((report for report in reports if "error" in report), None)
        if failed or len(reports) != len(jobs):
            message = failed["error"] if failed else f"its process ended with exit code {done.returncode}"
            raise InputError(message, where=jobs[len(reports) - bool(failed)].scorer)
        return [
            Observation(trace=_read(Path(scratch) / f"{number}.npz", report["digests"]), events=tuple(report["events"]))
            for number, report in enumerate(reports)
        ]


@dataclass(slots=True)
class _Watch:
    """The audit hook; keeps quiet until `allowed` is set."""

    allowed: frozenset[Path] | None = None
    events: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None or not (event == "open" or event in PROCESSES or event in NETWORK):
            return
        subject = arguments[0] if arguments else ""
        if event == "open":
            if isinstance(subject, int):  # a descriptor: whoever opened it was seen doing so
                return
            path = Path(os.path.realpath(os.fsdecode(subject)))
            if path in self.allowed or _imported(path):
                return
            subject = str(path)
        self.events.append(f"{event} {subject}"[:200])


def run_jobs() -> None:
    """In the child: do the job on stdin, one JSON line per scorer on stdout."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    tokens = np.load(job["tokens"])
    os.remove(job["tokens"])  # the text must not be lying there while the scorer runs
    tempfile.gettempdir()  # finds its folder by writing there, once; torch asks for it
    watch = _Watch()
    sys.addaudithook(watch)
    for each in job["scorers"]:
        try:
            report = _run(each, tokens, job["batch"], job["ranks"], watch)
        except PgolfError as error:
            report = {"error": str(error)}
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            report = {"error": f"failed with {type(error).__name__}: {error}"[:500]}
        pipe.write(json.dumps(report) + "\n")
        pipe.flush()
        if "error" in report:
            return


def _run(scorer: dict[str, Any], tokens: np.ndarray, batch: int, ranks: int, watch: _Watch) -> dict[str, Any]:
    given = [*scorer["allowed"], scorer["scorer"].rpartition(":")[0]]
    caches = [importlib.util.cache_from_source(path) for path in given if path.endswith(".py")]
    watch.events.clear()
    watch.allowed = frozenset(Path(os.path.realpath(path)) for path in [*given, *caches])
    try:
        run = trace(find_scorer(scorer["scorer"], scorer["arguments"]), tokens, batch=batch, ranks=ranks)
    finally:
        watch.allowed = None
    np.savez(scorer["out"], positions=run.positions, nats=run.nats, starts=np.array(run.starts, np.int64))
    return {"events": sorted(set(watch.events)), "digests": run.digests}


def _read(path: Path, digests: list[str]) -> Trace:
    with np.load(path, allow_pickle=False) as file:
        return Trace(
            positions=file["positions"],
            nats=file["nats"],
            log_probs=None,
            starts=tuple(file["starts"].tolist()),
            digests=tuple(digests),
        )


def _plain(job: ScorerJob) -> dict[str, Any]:
    return {
        "scorer": job.scorer,
        "arguments": list(job.arguments),
        "allowed": [str(path) for path in job.allowed],
    }


def load_module(name: str) -> Any:
    """The module of this name, or of this file when it ends in .py; its code runs in this process."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


def _imported(path: Path) -> bool:
    inside = any(path.is_relative_to(folder) for folder in INTERPRETER)
    return inside and path.suffix in MODULE
