"""What a run leaves in its folder besides its state: log, metrics, tracker files; and whether the folder is free."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codec.errors import UsageError
from codec.storage.atomic_files import check_writable
from trainer.run.state import RunPosition
from trainer.run.text_log import TrainLog
from trainer.run.trackers import JsonLines, Opener, Tracker

PACKAGE = Path(__file__).resolve().parents[1]
CHECKPOINT, LOG, METRICS, STATE = "checkpoint.safetensors", "train.log", "metrics.jsonl", "state.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class LogHead:
    """What the log of a run says first, beside what the run knows of itself.

    source_sha256: of the program; None = over the modules of `trainer`.  facts: each a line of its own.  echo: print
    the log as well.
    """

    source_sha256: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    echo: bool = False


def check_folder(out_dir: Path, resume: bool) -> None:
    """Refuse a folder that a new run would spoil, that holds nothing to resume, or that cannot be written.

    Raises: UsageError; EnvironmentLacks when there is no room.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise UsageError("is a file, a run needs a folder", where=str(out_dir), hint="choose another name")
    check_writable(out_dir / CHECKPOINT)
    finished, saved = ((out_dir / name).exists() for name in (CHECKPOINT, STATE))
    if resume and finished and not saved:
        raise UsageError("holds a finished run without its state", where=str(out_dir), hint="choose another folder")
    if resume or not (finished or saved or (out_dir / LOG).exists()):
        return
    raise UsageError(
        f"holds a {'finished' if finished else 'started'} run",
        where=str(out_dir),
        hint="choose another folder" if finished else "go on with --resume, or choose another folder",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFiles:
    """Log, metrics and trackers of one run of `steps` steps."""

    steps: int
    head: LogHead
    log: TrainLog
    metrics: JsonLines
    trackers: tuple[Tracker, ...]

    @classmethod
    def open(
        cls,
        out_dir: Path,
        position: RunPosition,
        openers: Sequence[Opener],
        identity: Mapping[str, Any],
        steps: int,
        head: LogHead,
    ) -> "RunFiles":
        """Start or, at a later position, continue the files of a run."""
        out_dir.mkdir(parents=True, exist_ok=True)
        return cls(
            steps=steps,
            head=head,
            log=TrainLog(out_dir / LOG, keep_bytes=position.log_bytes, echo=head.echo),
            metrics=JsonLines(out_dir / METRICS, keep_bytes=position.metrics_bytes),
            trackers=tuple(opener(out_dir, identity, position.step) for opener in openers),
        )

    def introduce(self, step: int, identity: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """What the run is, enough to tell whether two logs are of the same recipe, and where it runs.

        A resumed run says from which step, where and by which program it goes on.
        """
        source = f"source sha256:{self.head.source_sha256 or _source_sha256()}"
        if step:
            self.log.pairs(resumed_step=step, **facts)
            self.log.add(source)
            return
        self.log.add(json.dumps(identity, sort_keys=True))
        self.log.add(source)
        self.log.pairs(seed=identity["seed"])
        for name, value in self.head.facts.items():
            self.log.pairs(**{name: value})
        self.log.pairs(**facts)

    def trained(self, step: int, seconds: float, loss: float, values: Mapping[str, float]) -> None:
        """The loss of a step and other numbers of it."""
        self.log.trained(step, self.steps, loss, seconds)
        self._record(step, {"train_loss": loss, "train_seconds": seconds, **values})

    def validated(self, step: int, seconds: float, loss: float, bpb: float) -> None:
        """A validation after that step."""
        self.log.validated(step, self.steps, loss, bpb, seconds)
        self._record(step, {"val_loss": loss, "val_bpb": bpb, "train_seconds": seconds})

    def close(self) -> None:
        """Release the files and tell the trackers that nothing follows."""
        self.log.close()
        for each in (self.metrics, *self.trackers):
            each.close()

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        for each in (self.metrics, *self.trackers):
            each.record(step, values)


def _source_sha256() -> str:
    """Over the names and contents of all modules of `trainer`."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(PACKAGE).as_posix(), path) for path in PACKAGE.rglob("*.py")):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
