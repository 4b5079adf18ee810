"""Starts a submission's model in a sandboxed process of its own, and ends it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from codec.errors import InputError, LimitError, PgolfError
from verify.sandbox import confine, wire
from verify.sandbox.confine import Limits
from verify.sandbox.layout import Layout, lay_out
from verify.sandbox.remote_model import Remote
from verify.sandbox.scratch import Watchdog, scratch_folder
from verify.scoring.adaptation import Adaptation
from verify.scoring.windows import plan
from verify.submission.byte_count import MAIN
from verify.submission.folder import Submission

Process = subprocess.Popen[bytes]
BOOT = "import sys; sys.path.insert(0, sys.argv[2]); from verify.sandbox.confine import main; main()"
# What Python and CUDA need to start, and how long waiting threads spin (see pgolf.__main__): the checker's, not a
# submission's.
KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "GOMP_SPINCOUNT")
TAIL_LINES, TAIL_BYTES = 3, 4096  # of the child's stderr in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to load and score.  length, stride: in tokens; length None leaves it to the script.

    batch: windows at a time.  threads: None leaves it to torch.  time_limit: seconds for the process, start and loading
    included.  memory_limit: bytes; never more than 4/5 of the machine's.  environment: settings for scripts that read
    them; they win over those that the submission states itself.  adaptation: for the scorers that adapt.
    Raises: UsageError unless 1 <= stride <= length.
    """

    length: int | None = None
    stride: int = 64
    batch: int = 16
    threads: int | None = None
    device: str = "cpu"
    time_limit: float = 3600.0
    memory_limit: int = 16 * confine.GIGABYTE
    environment: dict[str, str] = field(default_factory=dict)
    adaptation: Adaptation = field(default_factory=Adaptation)

    def __post_init__(self) -> None:
        if self.length:
            plan(self.length, self.length, self.stride)  # or it would be noticed late, when the model is loaded


@contextmanager
def running(submission: Submission, artifact: bytes, settings: Settings) -> Iterator[Remote]:
    """The submission's model in a sandboxed process, which is gone, with its files, when the block ends.

    Raises: as `waiting`.
    """
    with waiting(submission, artifact, settings) as load:
        yield load()


@contextmanager
def waiting(submission: Submission, artifact: bytes, settings: Settings) -> Iterator[Callable[[], Remote]]:
    """A sandboxed process that has torch and nothing of the submission, until the function that it gives is called.

    So its start costs no time while another process works, and yet no two run a script at the same time.

    Raises: InputError when the script fails or its process dies; LimitError at the limit of time, memory or disk;
    EnvironmentLacks when the script needs another Python or a missing package.
    """
    with scratch_folder() as scratch, tempfile.TemporaryFile(prefix="pgolf-verify-") as stderr:
        where = str(submission.folder / MAIN)
        limits, layout = _limits(scratch, submission, settings), lay_out(submission, artifact, scratch)
        process = _start(limits, layout, stderr)
        requests, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        watchdog = Watchdog(lambda: _kill(process), limits, settings.time_limit, process.pid)

        def load() -> Remote:
            watchdog.start()
            wire.send(requests, _job(limits, layout, submission, settings))
            return Remote(requests, answers, where)

        try:
            yield load
        except (EOFError, BrokenPipeError):
            _kill(process)
            raise _died(process.wait(), watchdog.reason, stderr, where) from None
        except InputError as error:  # a scorer that is not content with the logits does not know whose they are
            error.where = error.where or where
            raise
        finally:
            if watchdog.ident:  # it was started
                watchdog.stop()
            _kill(process)
            process.wait()
            for pipe in (requests, answers):
                with suppress(BrokenPipeError):
                    pipe.close()


def _limits(scratch: Path, submission: Submission, settings: Settings) -> Limits:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Limits(
        scratch=str(scratch),
        packages=submission.packages,
        memory_bytes=min(settings.memory_limit, machine * 4 // 5),
        cuda=settings.device.startswith("cuda"),
    )


def _job(limits: Limits, layout: Layout, submission: Submission, settings: Settings) -> dict[str, Any]:
    """Describe the work.  stated: whether the submission's own settings are among those of its environment."""
    return {
        "script": str(layout.script),
        "artifact": str(layout.artifact),
        "scratch": limits.scratch,
        "environment": {**submission.given, **settings.environment},
        "stated": bool(submission.given),
        "threads": settings.threads,
        "device": settings.device,
        "memory_bytes": limits.memory_bytes,
    }


def _start(limits: Limits, layout: Layout, stderr: IO[bytes]) -> Process:
    environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    environment |= {"HOME": limits.scratch, "TMPDIR": limits.scratch, "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    environment["MALLOC_ARENA_MAX"] = "8"  # each reserves 64 MB of the limited address space, one for every thread
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", BOOT, limits.to_json(), str(layout.toolkit)],
        cwd=limits.scratch,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )


def _kill(process: Process) -> None:
    """End the child and whatever it started: they share a session of their own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _died(exit_code: int, reason: str, stderr: IO[bytes], where: str) -> PgolfError:
    """What to raise when the process ended without an answer."""
    if reason:
        hint = "raise --time-limit, or score less with --limit-tokens" if "time limit" in reason else ""
        return LimitError(reason, where=where, hint=hint)
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(size - TAIL_BYTES, 0))
    printed = stderr.read().decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
    after = f" after printing: {' | '.join(printed)}" if printed else ""
    ended = f"exit code {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name
    return InputError(
        f"its process ended with {ended} and no score{after}",
        where=where,
        hint="run it by itself: python -I train_gpt.py --eval",
    )
