"""Starts a submission's model in a sandboxed process of its own, and ends it."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from codec.errors import InputError, LimitError, PgolfError
from verify.sandbox import confine, wire
from verify.sandbox.confine import Limits
from verify.sandbox.layout import Layout, lay_out
from verify.sandbox.nursery import Nursery
from verify.sandbox.remote_model import Remote
from verify.sandbox.scratch import Watchdog, scratch_folder
from verify.scoring.adaptation import Adaptation
from verify.scoring.windows import plan
from verify.submission.byte_count import MAIN
from verify.submission.folder import Submission

NURSERY = Nursery()  # one for the program: what it holds is the same for every submission
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

    Raises: InputError when the script fails or its process dies; LimitError at the limit of time, memory or disk;
    EnvironmentLacks when the script needs another Python or a missing package.
    """
    with scratch_folder() as scratch, tempfile.TemporaryFile(prefix="pgolf-verify-") as stderr:
        where = str(submission.folder / MAIN)
        limits, layout = _limits(scratch, submission, settings), lay_out(submission, artifact, scratch)
        child = NURSERY.fork(limits, stderr.fileno())
        watchdog = Watchdog(child.kill, limits, settings.time_limit, child.pid)
        try:
            watchdog.start()
            wire.send(child.requests, _job(limits, layout, submission, settings))
            yield Remote(child.requests, child.answers, where)
        except (EOFError, BrokenPipeError):
            raise _died(child.end(), watchdog.reason, stderr, where) from None
        except InputError as error:  # a scorer that is not content with the logits does not know whose they are
            error.where = error.where or where
            raise
        finally:
            watchdog.stop()
            child.end()


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
