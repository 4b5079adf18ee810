"""Reads the text logs of runs: line by line what a grammar sees in it, then all lines of a run together as one Log.

Logs often begin with the source of the script, whose lines look alike; everything between its first and last unindented
statement is left out.  A file may hold several runs, which verify.claims.run_borders tells apart.  A line that names
bits per byte with a figure and that no grammar reads is kept by its number: nobody knows then what the log says last.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, zip_longest
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
from verify.claims.log_text import TextLine, read_lines
from verify.claims.run_borders import Told, split_runs
from verify.claims.score_line import names_score, read_score, score_of_two

SOURCE = re.compile(r"\"\"\"|'''|(?P<imports>import \w|from [\w.]+ import )|def \w|class \w|if __name__")
SEEDS = r"seed[_=-]?(\d{1,19})"
SHORT = r"(?:^|[_-])s[_-]?(\d{1,19})(?![\d.]|.*[_-]s[_-]?\d)"  # the last, when several begin with s
WHOLE = re.compile(r".*(?:s$|\)$|bpb\W*[\d.]+$|(?=\s\S*$))|.*")  # without a last word that may be cut
SIZE = re.compile(r"(?:Serialized model|Code size|Total submission size).*\d")
OPENING = 5  # lines by which a source is known again
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
class Unread:
    """A line that may hold a score, and that is not understood.  why: in a few words.

    scored: it does hold one, which is read; only what stands behind is lost.
    """

    line: int
    text: str
    why: str
    scored: bool = False

    def __str__(self) -> str:
        text = self.text.strip()
        return f"line {self.line}, `{text[:80]}{'...' if len(text) > 80 else ''}`, {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One run.  metrics: in the order of the file.  targets: tokens of the validation text, if stated.

    run: which of the `runs` of its file.  unread: lines that may hold a score.  killed: training ended before its last
    step and nothing says why; then its scores are those of training only.  calibrate_seconds: what
    `pgolf calibrate` added to training.  eval_seconds: the total the log itself states.
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
    run: int = 1
    runs: int = 1
    killed: bool = False
    unread: tuple[Unread, ...] = ()

    @property
    def name(self) -> str:
        """The file's name; that of its folder as well when it is one that every run uses, and which run of several."""
        name = f"{self.path.parent.name}/{self.path.name}" if self.path.name == "train.log" else self.path.name
        return f"{name}, run {self.run} of {self.runs}" if self.runs > 1 else name


def read_log(path: str | Path) -> Log:
    """Read a log of one run, by all grammars of verify.claims.log_grammar.

    Raises: InputError as `read_logs`, and when more than one of its runs has a score.
    """
    logs = read_logs(path)
    scored = [log for log in logs if not log.killed] or logs[-1:]
    if len(scored) > 1:
        raise InputError(
            f"holds {len(scored)} runs with a score, seeds {', '.join(str(log.seed) for log in scored)}; one expected",
            where=str(path),
            hint="give each run a file of its own",
        )
    return scored[0]


def read_logs(path: str | Path) -> tuple[Log, ...]:
    """Read the runs of one log file, in the order of the file; one that was killed says so.

    Raises: InputError when the file is missing or holds no score, not even of training.
    """
    path = Path(path)
    lines, foreign = read_lines(read_bytes(path))
    entries: list[Told] = []
    unread = [Unread(line=line.number, text=line.text, why="another rank than the first prints it") for line in foreign]
    for kept, source in _without_source(lines):
        if source:
            at = kept[0].number if kept else 0
            entries.append(Told(line=at, events=(SourceHash(sha256=source),), shape="the script"))
        for line, following in zip_longest(kept, kept[1:]):
            events, missed = _read(line, following.text if following else "")
            entries += [Told(line=line.number, events=events, shape=re.sub(r"\d+", "#", line.text))]
            unread += [missed] if missed else []
    runs = split_runs(entries)
    borders = [run[0].line for run in runs[1:]] + [math.inf]
    logs = []
    for number, run in enumerate(runs, 1):
        mine = [each for each in unread if each.line < borders[number - 1]]
        unread = [each for each in unread if each not in mine]
        logs.append(_log(path, run, tuple(sorted(mine, key=lambda each: each.line)), number, len(runs)))
    if not any(log.metrics for log in logs):
        missed = next((each for log in logs for each in log.unread), None)
        raise InputError(
            "holds no line with val_loss and val_bpb that is understood, so it is not the log of a scored run"
            + (f"; {missed}" if missed else ""),
            where=str(path),
            hint="pass a training log, a submission.json, or a folder of them",
        )
    return tuple(logs)


def _log(path: Path, run: list[Told], unread: tuple[Unread, ...], number: int, runs: int) -> Log:
    events = [event for each in run for event in each.events]
    metrics = _measurements(_of(events, Metric))
    settings = _settings(events)
    hashes, training = _of(events, SourceHash), _training(_of(events, Training))
    targets = _last(events, Targets)
    evaluation, calibration = _last(events, EvaluationTime), _last(events, CalibrationTime)
    scored = any(metric.kind != "training" for metric in metrics)
    return Log(
        path=path,
        metrics=metrics,
        sizes=_sizes(_of(events, Size)),
        seed=_seed(settings, path, alone=runs == 1),
        targets=targets.tokens if targets else None,
        train_seconds=training.seconds,
        steps=training.step,
        eval_seconds=evaluation.seconds if evaluation else None,
        calibrate_seconds=calibration.seconds if calibration else None,
        settings=settings,
        code_sha256=hashes[-1].sha256 if hashes else "",
        run=number,
        runs=runs,
        killed=not metrics or (not scored and not training.stopped and (training.step or 0) < (training.of or 0)),
        unread=unread,
    )


def _read(line: TextLine, following: str) -> tuple[tuple[Event, ...], Unread | None]:
    """What a line says; the line itself when it may hold a score that nobody reads, or lost something to a cut."""
    text, cut = line.text, None
    if not line.ended and not text.rstrip().endswith("bytes"):
        cut = Unread(line=line.number, text=text, why="the file ends inside it")
        if read_score(text, ended=False) is None:
            return (), cut if names_score(text) or read_line(text) or SIZE.match(text) else None
        text = WHOLE.match(text)[0]  # type: ignore[index]
        cut = None if text == line.text else replace(cut, scored=True)
    events = read_line(text)
    found = tuple(replace(event, line=line.number) if isinstance(event, Metric) else event for event in events or ())
    understood = events == () or any(isinstance(event, Metric | Training) for event in found)
    if names_score(text) and not understood:
        return found, Unread(line=line.number, text=text, why="names a score and is not understood")
    if score_of_two(text, following):
        return found, Unread(line=line.number, text=text, why="has its figure on the next line and is not understood")
    return found, cut


def _without_source(text: list[TextLine]) -> list[tuple[list[TextLine], str]]:
    """The lines outside the script's source, and the source's sha256 ("" without one), each time it is printed."""
    begin = next((place for place, line in enumerate(text) if SOURCE.match(line.text)), None)
    if begin is None:
        return [(text, "")]
    opening = [line.text for line in text[begin : begin + OPENING]]
    again = [
        place
        for place in range(begin + OPENING, len(text) - OPENING)
        if text[place].text == opening[0] and [line.text for line in text[place : place + OPENING]] == opening
    ]
    borders = [0, *again, len(text)]
    return [_outside(text[first:last]) for first, last in pairwise(borders)]


def _outside(text: list[TextLine]) -> tuple[list[TextLine], str]:
    code = {place: found for place, line in enumerate(text) if (found := SOURCE.match(line.text))}
    if len(code) < 2 or not any(found["imports"] for found in code.values()):
        return text, ""
    first, last = min(code), max(code)
    source = "\n".join(line.text for line in text[first : last + 1])
    return text[:first] + text[last + 1 :], hashlib.sha256(source.encode(errors="replace")).hexdigest()


def _of(events: Iterable[Event], kind: type[T]) -> list[T]:
    return [event for event in events if isinstance(event, kind)]


def _last(events: Iterable[Event], kind: type[T]) -> T | None:
    return next(reversed(_of(events, kind)), None)


def _measurements(found: Iterable[Metric]) -> tuple[Metric, ...]:
    metrics: list[Metric] = []
    for metric in found:
        again = _repeated(metrics, metric) if metric.kind == "other" else None
        if metrics and _twins(metrics[-1], metric):
            metrics[-1] = _joined(metrics[-1], metric)
        elif again is not None:
            metrics[again] = _joined(metrics[again], metric)
        else:
            metrics.append(metric)
    return tuple(metrics)


def _repeated(metrics: list[Metric], metric: Metric) -> int | None:
    """Where the score of an unknown label, as in a summary at the end, stands under a known one; with 4 digits."""
    if metric.decimals < 4:
        return None
    places = reversed(range(len(metrics)))
    return next(
        (place for place in places if metrics[place].kind != "training" and metrics[place].prints_as(metric)), None
    )


def _twins(one: Metric, two: Metric) -> bool:
    """The same measurement printed twice: equal as far as printed, and under a like label unless to many digits.

    `X` and `X_exact`; `ttt_sliding:done` and `legal_ttt`; a sliding score repeated as final_int8_zlib_roundtrip_exact.
    """
    return one.prints_as(two) and (one.kind == two.kind != "training" or min(one.decimals, two.decimals) >= 6)


def _joined(one: Metric, two: Metric) -> Metric:
    exact, other = (two, one) if two.decimals > one.decimals and two.kind != "other" else (one, two)
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
    """Hyperparameters: what is stated before training, then those of phases.

    What a run states again with another value it measured, whatever its name; the seed alone may be chosen twice.
    """
    settings: dict[str, str] = {}
    measured: set[str] = set()
    training = False
    for event in events:
        training = training or isinstance(event, Training | Metric)
        if isinstance(event, Hyperparameters):
            measured |= {key for key, value in event.values.items() if settings.get(key, value) != value}
            if event.phase or not training:
                settings |= event.values
    return {key: value for key, value in settings.items() if key == "seed" or key not in measured}


def _seed(settings: dict[str, str], path: Path, *, alone: bool) -> int | None:
    """As logged, else from names such as train_seed42.log and run_s42.txt: of `s64_seed42`, where s is a stride, 42.

    alone: the file holds one run, so that its name is this run's.
    """
    logged = re.fullmatch(r"(\d{1,19})", settings.get("seed", ""))
    named = [re.search(pattern, path.stem, re.I) for pattern in (SEEDS, SHORT)] if alone else []
    found = logged or next(filter(None, named), None)
    return int(found[1]) if found else None
