"""Starts the fresh process that loads and scores a submission, with a wall-clock limit."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import IO, Any

import numpy as np

from codec.errors import InputError, LimitError, PgolfError
from verify.child import BOOT
from verify.code_bytes import MAIN
from verify.heldout import HeldOut
from verify.scorers import Score
from verify.submission import Submission
from verify.windows import plan

Process = subprocess.Popen[str]
ROOT = Path(__file__).resolve().parents[1]
# What Python and CUDA need to start, and how long waiting threads spin (see pgolf.__main__).
KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "GOMP_SPINCOUNT")
TAIL_LINES = 3  # of the child's stderr in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to score.  length, stride: in tokens.  batch: windows at a time.  threads: None leaves it to torch.

    time_limit: seconds for the process, start and loading included.
    Raises: UsageError unless 1 <= stride <= length.
    """

    length: int
    stride: int = 64
    batch: int = 16
    threads: int | None = None
    device: str = "cpu"
    time_limit: float = 3600.0

    def __post_init__(self) -> None:
        plan(self.length, self.length, self.stride)  # the child would notice too, but late and as a bad input


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """state: per tensor of the loaded module its dtype, shape and sha256."""

    score: Score
    state: dict[str, dict[str, Any]]


def reload(
    submission: Submission,
    artifact: bytes,
    heldout: HeldOut,
    settings: Settings,
    progress: Callable[[int, str], None] | None = None,
) -> Reloaded:
    """Load `artifact` by the submission's script in a fresh `python -I` process and score it there.

    The process sees a copy of the counted files only: what is not counted cannot be used.

    Raises: InputError when the script fails or its process dies; LimitError at the time limit.
    """
    with tempfile.TemporaryDirectory(prefix="pgolf-verify-") as folder:
        scratch, state, started = Path(folder), {}, time.monotonic()
        job = _job(scratch, submission, artifact, heldout, settings)
        with _child(scratch, job, settings.time_limit) as (process, reports):
            for line in reports:
                report = json.loads(line)
                match report.pop("kind"):
                    case "loaded":
                        state = report["state"]
                    case "progress" if progress:
                        progress(report["done"], report["note"])
                    case "score":
                        return Reloaded(score=Score(**report), state=state)
                    case "error":
                        raise InputError(report["message"], where=str(submission.folder / MAIN), hint=report["hint"])
            timed_out = time.monotonic() - started >= settings.time_limit
            raise _died(scratch, process.wait(), settings.time_limit if timed_out else None, submission)


def _job(
    scratch: Path, submission: Submission, artifact: bytes, heldout: HeldOut, settings: Settings
) -> dict[str, Any]:
    """Lay the files out in the scratch folder and describe the work."""
    copy = scratch / "submission"
    for path in submission.code:
        target = copy / path.relative_to(submission.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (copy / submission.artifact.name).write_bytes(artifact)
    np.save(scratch / "tokens.npy", heldout.tokens)
    return {
        "script": str(copy / MAIN),
        "artifact": str(copy / submission.artifact.name),
        "tokens": str(scratch / "tokens.npy"),
        "tokenizer": str(heldout.tokenizer.resolve()),
        "length": settings.length,
        "stride": settings.stride,
        "batch": settings.batch,
        "threads": settings.threads,
        "device": settings.device,
    }


@contextmanager
def _child(scratch: Path, job: dict[str, Any], time_limit: float) -> Iterator[tuple[Process, IO[str]]]:
    """The running process and its reports; it is gone, with all it started, when the block ends."""
    environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    environment |= {"HOME": str(scratch), "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}
    (scratch / "job").write_text(json.dumps(job) + "\n")
    with (
        open(scratch / "job") as stdin,
        open(scratch / "stderr", "wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-I", "-c", BOOT, str(ROOT)],
            cwd=scratch,
            env=environment,
            text=True,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        ) as process,
    ):
        timer = Timer(time_limit, _kill, [process])
        timer.start()
        try:
            yield process, process.stdout or io.StringIO()
        finally:
            timer.cancel()
            _kill(process)


def _kill(process: Process) -> None:
    """End the child and whatever it started: they share a session of their own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _died(scratch: Path, exit_code: int, time_limit: float | None, submission: Submission) -> PgolfError:
    """What to raise when the process ended without a score."""
    where = str(submission.folder / MAIN)
    if time_limit is not None:
        return LimitError(
            f"took longer than the time limit of {time_limit:g} s",
            where=where,
            hint="raise --time-limit, or score less with --limit-tokens",
        )
    printed = (scratch / "stderr").read_text(errors="replace").strip().splitlines()[-TAIL_LINES:]
    after = f" after printing: {' | '.join(printed)}" if printed else ""
    return InputError(
        f"its process ended with exit code {exit_code} and no score{after}",
        where=where,
        hint="run it by itself: python -I train_gpt.py --eval",
    )
