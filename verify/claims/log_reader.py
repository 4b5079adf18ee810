"""Reads the text logs of runs: measurements, sizes, times and settings, in the dialects of the field and our own.

A measurement is one whole line, `label val_loss:2.7866 val_bpb:1.0788 eval_time:336109ms`, with `:` or `=`, with or
without a space behind them, a time stamp before it; of pull request 1123 also `TTT bpb: 1.198562`.  Logs often begin
with the source of the script, whose lines look alike; everything between its first and last unindented statement is
left out.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes
from verify.claims.log_grammar import (
    CALIBRATED,
    EVALUATED,
    MEASURED,
    NUMBER,
    PAIR,
    PER_SECOND,
    SETTING,
    SIZE,
    SOURCE,
    SOURCE_HASH,
    SPOKEN,
    STARTED,
    STOPPED,
    TARGETS,
    Kind,
    kind_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measurement.  loss: nats per token, if the line says.  decimals: digits behind the point of the printed bpb.

    seconds: what it took, if the log says.  line: its number in the file.  notes: other pairs of the line.
    also: labels under which the very same measurement was printed again, often with fewer digits.
    """

    label: str
    loss: float | None
    bpb: float
    decimals: int
    seconds: float | None
    line: int
    notes: dict[str, str]
    also: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """What was scored and how, as far as the label tells."""
        return kind_of(self.label)

    def prints_as(self, other: "Metric") -> bool:
        """Whether both are the same numbers, but for the digits printed."""
        half = 0.5000001 * 10.0 ** -min(self.decimals, other.decimals)
        apart = 0.0 if self.loss is None or other.loss is None else abs(self.loss - other.loss)
        return abs(self.bpb - other.bpb) <= half and apart <= half


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
    """Read one log.

    Raises: InputError when the file is missing or holds no line with val_loss and val_bpb.
    """
    path = Path(path)
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", read_bytes(path).decode("utf-8", errors="replace"))
    lines, source = _without_source(text.splitlines())
    metrics = _measurements(lines)
    if not metrics:
        raise InputError(
            "holds no line with val_loss and val_bpb, so it is not the log of a scored run",
            where=str(path),
            hint="pass a training log, a submission.json, or a folder of them",
        )
    settings = _settings(line for _, line in lines)
    code_sha256 = next((found[1] for _, line in lines if (found := SOURCE_HASH.match(line))), source)
    seconds, steps = _training(lines, metrics)
    return Log(
        path=path,
        metrics=metrics,
        sizes=_sizes(lines),
        seed=_seed(settings, path),
        targets=_last(TARGETS, "tokens", lines, int),
        train_seconds=seconds,
        steps=steps,
        eval_seconds=_last(EVALUATED, "seconds", lines, float),
        calibrate_seconds=_seconds(_last(CALIBRATED, "spent", lines, str) or ""),
        settings=settings,
        code_sha256=code_sha256,
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


def _measurements(lines: Lines) -> tuple[Metric, ...]:
    metrics: list[Metric] = []
    for number, line in lines:
        if found := MEASURED.match(line) or SPOKEN.match(line):
            metric = _metric(number, found.groupdict())
            twin = metrics and _twins(metrics[-1], metric)
            if twin:
                metrics[-1] = _joined(metrics[-1], metric)
            else:
                metrics.append(metric)
    return tuple(metrics)


def _metric(number: int, found: dict[str, str]) -> Metric:
    words = found["label"].rstrip(":").split(" ")
    name = [words[0], *(word for word in words[1:] if not re.fullmatch(PAIR, word))]
    notes = _pairs(" ".join(words[1:]) + found.get("rest", ""))
    seconds = next((_seconds(notes[key]) for key in ("eval_time", "time", "elapsed") if key in notes), None)
    return Metric(
        label=" ".join(name),
        loss=float(found["loss"]) if "loss" in found else None,
        bpb=float(found["bpb"]),
        decimals=len(found["bpb"].partition(".")[2]),
        seconds=seconds,
        line=number,
        notes=notes,
    )


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


def _sizes(lines: Lines) -> Sizes:
    found = [match for _, line in lines if (match := SIZE.match(line))]
    sizes = [(match["what"], match["how"].strip(), int(match["bytes"].replace(",", ""))) for match in found]
    # Without a codec's name, model and total are those of the float checkpoint.
    models = [size for what, how, size in sizes if what == "Serialized model" and how]
    totals = [size for what, how, size in sizes if what == "Total submission size" and how]
    codes = [size for what, _, size in sizes if what == "Code size"]
    total = totals[-1] if totals else None
    for model in reversed(models):
        for code in reversed(codes):
            if total in (None, model + code):
                readable = next((size for size in codes if size != code), None)
                return Sizes(model=model, code=code, total=model + code, readable_code=readable)
    return Sizes(model=models[-1] if models else None, code=codes[-1] if codes else None, total=total)


def _training(lines: Lines, metrics: Iterable[Metric]) -> tuple[float | None, int | None]:
    """(seconds, steps) of training: where it stopped early, else its last validation."""
    stopped = [found for _, line in lines if (found := STOPPED.match(line))]
    if stopped:
        return int(stopped[-1]["ms"]) / 1000, int(stopped[-1]["step"])
    trained = [metric for metric in metrics if metric.kind == "training"]
    if not trained:
        return None, None
    last = trained[-1]
    return _seconds(last.notes.get("train_time", "")), int(re.findall(r"\d+", last.label)[0])


def _settings(lines: Iterable[str]) -> dict[str, str]:
    """Hyperparameters: an indented block, our JSON line, or lines of pairs before training; then `x:start` lines."""
    settings: dict[str, str] = {}
    training = False
    for line in lines:
        training = training or "train_loss" in line or bool(MEASURED.match(line))
        if found := STARTED.match(line):
            settings |= {f"{found['what']}.{key}": value for key, value in _pairs(found["rest"]).items()}
        elif training:
            continue
        elif found := SETTING.match(line):
            settings[found[1]] = found[2]
        elif line.startswith("{"):
            settings |= _json(line)
        elif re.fullmatch(rf"{PAIR}(?: {PAIR})*", line):
            settings |= _pairs(line)
    return settings


def _json(line: str) -> dict[str, str]:
    """The object of one line, nested names joined by dots; {} when it is none."""
    try:
        return dict(_flat(json.loads(line)))
    except (ValueError, RecursionError):
        return {}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield name, str(value)
        return
    for key, item in value.items():
        yield from _flat(item, f"{name}.{key}" if name else key)


def _seed(settings: dict[str, str], path: Path) -> int | None:
    """As logged, else from names such as train_seed42.log and run_s42.txt."""
    logged = settings.get("seed", "")
    found = re.fullmatch(r"(\d{1,19})", logged) or re.search(r"(?:seed|_s)[_-]?(\d{1,19})", path.stem)
    return int(found[1]) if found else None


def _pairs(text: str) -> dict[str, str]:
    return {key: value.rstrip(",") for key, value in re.findall(r"([\w/.]+)[:=] ?(\S+)", text)}


def _seconds(text: str) -> float | None:
    found = re.fullmatch(rf"({NUMBER})(ms|s|m)", text)
    return float(found[1]) / PER_SECOND[found[2]] if found else None


def _last(pattern: re.Pattern[str], group: str, lines: Lines, kind: type) -> Any:
    found = [match[group] for _, line in lines if (match := pattern.match(line))]
    return kind(found[-1]) if found else None
