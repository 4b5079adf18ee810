"""Reads the text logs of runs: line by line what a grammar sees in it, then all lines together as one Log.

Logs often begin with the source of the script, whose lines look alike; everything between its first and last unindented
statement is left out.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes
from verify.claims.log_events import (
    CalibrationTime,
    EvaluationTime,
    Event,
    Hyperparameters,
    Metric,
    Size,
    SourceHash,
    Targets,
    Training,
)
from verify.claims.log_grammar import read_line

SOURCE = re.compile(r"\"\"\"|'''|(?P<imports>import \w|from [\w.]+ import )|def \w|class \w|if __name__")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes as logged.  code: the size that, with model, makes the total, where one does.

    readable_code: of the script before it was wrapped, where the log states both.
    """

    model: int | None
    code: int | None
    total: int | None
    readable_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One run.  metrics: in the order of the file.  targets: tokens of the validation text, if stated.

    calibrate_seconds: what `pgolf calibrate` added to training.  eval_seconds: the total the log itself states.
    settings: hyperparameters as text.  code_sha256: of the source, "".
    """

    path: Path
    metrics: tuple[Metric, ...]
    sizes: Sizes
    seed: int | None
    targets: int | None
    train_seconds: float | None
    steps: int | None
    eval_seconds: float | None
    calibrate_seconds: float | None = None
    settings: dict[str, str] = field(default_factory=dict)
    code_sha256: str = ""

    @property
    def name(self) -> str:
        """The file's name; that of its folder as well when it is one that every run uses."""
        return f"{self.path.parent.name}/{self.path.name}" if self.path.name == "train.log" else self.path.name


def read_log(path: str | Path) -> Log:
    """Read one log, by all grammars of verify.claims.log_grammar.

    Raises: InputError when the file is missing or holds no line with val_loss and val_bpb.
    """
    path = Path(path)
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", read_bytes(path).decode("utf-8", errors="replace"))
    lines, source = _without_source(text.splitlines())
    events = _events(lines)
    metrics = _measurements(_of(events, Metric))
    if not metrics:
        raise InputError(
            "holds no line with val_loss and val_bpb, so it is not the log of a scored run",
            where=str(path),
            hint="pass a training log, a submission.json, or a folder of them",
        )
    settings = _settings(events)
    hashes, training = _of(events, SourceHash), _training(_of(events, Training))
    targets = _last(events, Targets)
    evaluation, calibration = _last(events, EvaluationTime), _last(events, CalibrationTime)
    return Log(
        path=path,
        metrics=metrics,
        sizes=_sizes(_of(events, Size)),
        seed=_seed(settings, path),
        targets=targets.tokens if targets else None,
        train_seconds=training.seconds,
        steps=training.step,
        eval_seconds=evaluation.seconds if evaluation else None,
        calibrate_seconds=calibration.seconds if calibration else None,
        settings=settings,
        code_sha256=hashes[-1].sha256 if hashes else source,
    )


Lines = list[tuple[int, str]]  # (number in the file, from 1; text)


def _without_source(text: list[str]) -> tuple[Lines, str]:
    """The numbered lines outside the script's source, and the source's sha256 ("" without one)."""
    code = {number: found for number, line in enumerate(text, 1) if (found := SOURCE.match(line))}
    if len(code) < 2 or not any(found["imports"] for found in code.values()):
        return list(enumerate(text, 1)), ""
    first, last = min(code), max(code)
    kept = [(number, line) for number, line in enumerate(text, 1) if not first <= number <= last]
    return kept, hashlib.sha256("\n".join(text[first - 1 : last]).encode()).hexdigest()


def _events(lines: Lines) -> list[Event]:
    """What the lines say, in order; lines that no grammar knows say nothing."""
    return [
        replace(event, line=number) if isinstance(event, Metric) else event
        for number, line in lines
        for event in read_line(line) or ()
    ]


def _of(events: Iterable[Event], kind: type[T]) -> list[T]:
    return [event for event in events if isinstance(event, kind)]


def _last(events: Iterable[Event], kind: type[T]) -> T | None:
    return next(reversed(_of(events, kind)), None)


def _measurements(found: Iterable[Metric]) -> tuple[Metric, ...]:
    metrics: list[Metric] = []
    for metric in found:
        if metrics and _twins(metrics[-1], metric):
            metrics[-1] = _joined(metrics[-1], metric)
        else:
            metrics.append(metric)
    return tuple(metrics)


def _twins(one: Metric, two: Metric) -> bool:
    """The same measurement printed twice: equal as far as printed, and under a like label unless to many digits.

    `X` and `X_exact`; `ttt_sliding:done` and `legal_ttt`; a sliding score repeated as final_int8_zlib_roundtrip_exact.
    """
    return one.prints_as(two) and (one.kind == two.kind != "training" or min(one.decimals, two.decimals) >= 6)


def _joined(one: Metric, two: Metric) -> Metric:
    exact, other = (two, one) if two.decimals > one.decimals else (one, two)
    label = exact.label.removesuffix("_exact")
    known = [seconds for seconds in (one.seconds, two.seconds) if seconds is not None]
    also = dict.fromkeys((*one.also, other.label.removesuffix("_exact"), *two.also))
    return replace(
        exact,
        label=label,
        seconds=max(known, default=None),
        notes={**other.notes, **exact.notes},
        also=tuple(name for name in also if name != label),
    )


def _sizes(found: Iterable[Size]) -> Sizes:
    models = [size.bytes for size in found if size.part == "model" and size.codec]
    totals = [size.bytes for size in found if size.part == "total" and size.codec]
    codes = [size.bytes for size in found if size.part == "code"]
    total = totals[-1] if totals else None
    for model in reversed(models):
        for code in reversed(codes):
            if total in (None, model + code):
                readable = next((size for size in codes if size != code), None)
                return Sizes(model=model, code=code, total=model + code, readable_code=readable)
    return Sizes(model=models[-1] if models else None, code=codes[-1] if codes else None, total=total)


def _training(found: Sequence[Training]) -> Training:
    """Where training stopped early, else its last validation."""
    stopped = [each for each in found if each.stopped]
    stepped = [each for each in found if each.step is not None]
    return (stopped or stepped or [Training()])[-1]


def _settings(events: Iterable[Event]) -> dict[str, str]:
    """Hyperparameters: what is stated before training, then those of phases."""
    settings: dict[str, str] = {}
    training = False
    for event in events:
        training = training or isinstance(event, Training | Metric)
        if isinstance(event, Hyperparameters) and (event.phase or not training):
            settings |= event.values
    return settings


def _seed(settings: dict[str, str], path: Path) -> int | None:
    """As logged, else from names such as train_seed42.log and run_s42.txt."""
    logged = settings.get("seed", "")
    found = re.fullmatch(r"(\d{1,19})", logged) or re.search(r"(?:seed|_s)[_-]?(\d{1,19})", path.stem)
    return int(found[1]) if found else None
