"""Which lines a log holds, and what each of them says: grammars, one for each format, tried line by line.

A format that is not known here is registered from outside:

    register(LogGrammar(name="mine", lines=(LineKind(name="score", pattern=re.compile(...), read=...),)))
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from codec.errors import UsageError
from verify.claims.log_events import (
    CalibrationTime,
    EvaluationTime,
    Event,
    Hyperparameters,
    Size,
    SourceHash,
    Targets,
    Training,
)
from verify.claims.score_line import read_score, seconds

Events = tuple[Event, ...]
Match = re.Match[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineKind:
    """One kind of line.  pattern: matches it from its first character.

    read: the match -> what the line says; None when it is another kind of line after all.
    """

    name: str
    pattern: re.Pattern[str]
    read: Callable[[Match], Events | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGrammar:
    """The lines of one format; the first kind whose pattern matches reads a line."""

    name: str
    lines: tuple[LineKind, ...]


GRAMMARS: dict[str, LogGrammar] = {}  # by name, the field's first


def register(grammar: LogGrammar) -> LogGrammar:
    """Let `read_log` know another format.  The latest is tried first: it may claim lines that others would take.

    Raises: UsageError when its name is taken.
    """
    if grammar.name in GRAMMARS:
        raise UsageError(f"a log grammar `{grammar.name}` is registered already", hint="give it another name")
    GRAMMARS[grammar.name] = grammar
    return grammar


def read_line(line: str) -> Events | None:
    """What a line says, by the first kind of line that matches; None when no grammar knows it."""
    for grammar in reversed(GRAMMARS.values()):
        for kind in grammar.lines:
            if (match := kind.pattern.match(line)) and (events := kind.read(match)) is not None:
                return events
    return None


# --- the field's format, in its dialects, and this toolkit's ----------------------------------------------------------

NUMBER = r"\d{1,12}(?:\.\d{1,20})?"  # bounded, as all digits here: logs come from anywhere
PAIR = r"[\w/.]+[:=] ?\S+"
PAIRS = re.compile(rf"{PAIR}(?: {PAIR})*\Z")
# What a run measures, by the last part of a key, whenever it is printed; `warmdown_frac`, `qk_norm` and `z_loss` are
# settings.  Of other keys verify.claims.log_reader drops those that a run states with two values.
MEASURED = re.compile(
    r"(?:^|[./])(?:step|steps_done|iter|it|loss|bpb|t|avg|ms|s|sec|time|elapsed|took|eta|mem|norm|gnorm|lr_now|tok/s|frac|"
    r"step_avg|payload|payload_ratio|ratio|mse|snr|acc)$|(?:grad|weight|param|update|activation)_norm$|"
    r"(?:^|[._/])(?:train|val|valid|eval|test|init|initial|start|first|last|final|mean|avg|running)_loss$|"
    r"_(?:time|bpb|ms|mse|acc|elapsed)$",
    re.I,
)
LIMIT = re.compile(r"(?:^|[._/])(?:max|min|limit|target|budget|cap|stop)_", re.I)  # `max_time` was chosen
WITH_UNIT = re.compile(rf"{NUMBER}(?:ms|us|s|m|[KMG]i?B|B|%|x|tok/s)$")
# Keys whose value with a unit was measured; any other, as `reserve:12s` or `chunk:32KB`, was chosen.
MEASURES = re.compile(
    r"time|took|elapsed|spent|mem|alloc|peak|reserved|used|free|speed|throughput|tok|rate|size|bytes|params|total|load|compile|"
    r"effective|ratio|saved|done|progress|util",
    re.I,
)
PARTS: dict[str, Literal["model", "code", "total"]] = {
    "Serialized model": "model",
    "Code size": "code",
    "Total submission size": "total",
}


def _measured(match: Match) -> Events | None:
    """A score; nothing when it is of something else than the run's result."""
    metric = read_score(match.string)
    if metric is None or metric.kind == "diagnostic":
        return None if metric is None else ()
    if metric.kind != "training":
        return (metric,)
    step, *total = [int(number) for number in re.findall(r"\d{1,12}", metric.label)[:2]] or [0]
    return metric, Training(step=step, of=next(iter(total), None), seconds=seconds(metric.notes.get("train_time", "")))


def _stopped(match: Match) -> Events:
    return (Training(step=int(match["step"]), seconds=int(match["ms"]) / 1000, stopped=True),)


def _size(match: Match) -> Events:
    size = int(match["bytes"].replace(",", ""))
    return (Size(part=PARTS[match["what"]], bytes=size, codec=match["how"].strip()),)


def _calibrated(match: Match) -> Events:
    spent = seconds(match["spent"])
    return () if spent is None else (CalibrationTime(seconds=spent),)


def _targets(match: Match) -> Events:
    """Also a setting, where the line is nothing but pairs."""
    pairs = PAIRS.match(match.string)
    return Targets(tokens=int(match["tokens"])), *((_settings(pairs) if pairs else None) or ())


def _started(match: Match) -> Events:
    phase, pairs = match["what"], _chosen(_pairs(match["rest"]))
    return (Hyperparameters(values={f"{phase}.{key}": value for key, value in pairs.items()}, phase=True),)


def _settings(match: Match) -> Events | None:
    """Pairs that somebody chose; a line that tells of a step is no line of settings."""
    chosen = _chosen(_pairs(match.string))
    return (Hyperparameters(values=chosen),) if chosen and re.match("step|iter|epoch", match.string) is None else None


def _chosen(pairs: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in pairs.items() if LIMIT.search(key) or not _is_measured(key, value)}


def _is_measured(key: str, value: str) -> bool:
    return bool(MEASURED.search(key) or (WITH_UNIT.match(value) and MEASURES.search(key)))


def _json(match: Match) -> Events | None:
    """The object of one line, nested names joined by dots; None when it is no JSON, as a printed dict."""
    try:
        return (Hyperparameters(values=dict(_flat(json.loads(match.string)))),)
    except (ValueError, RecursionError):
        return None


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield name, str(value)
        return
    for key, item in value.items():
        yield from _flat(item, f"{name}.{key}" if name else key)


def _pairs(text: str) -> dict[str, str]:
    return {key: value.rstrip(",") for key, value in re.findall(r"([\w/.]+)[:=] ?(\S+)", text)}


def _line(name: str, pattern: str, read: Callable[[Match], Events | None]) -> LineKind:
    return LineKind(name=name, pattern=re.compile(pattern), read=read)


FIELD = register(
    LogGrammar(
        name="field",
        lines=(
            _line(
                "score",
                r"(?i:(?=.*(?:bpb|bits?[ _/-](?:per[ _-])?byte))|(?:Legal )?TTT:)",
                _measured,
            ),
            _line(
                "early stop",
                r"stopping_early: \S+ train_time: ?(?P<ms>\d{1,12})ms step: ?(?P<step>\d{1,12})/",
                _stopped,
            ),
            _line("size", rf"(?P<what>{'|'.join(PARTS)})(?P<how>[^:]*): (?P<bytes>\d[\d,]{{0,20}}) bytes", _size),
            _line(
                "evaluation time",
                rf"total_eval_time: ?(?P<seconds>{NUMBER})s",
                lambda match: (EvaluationTime(seconds=float(match["seconds"])),),
            ),
            _line("calibration time", r"phase_times calibrate:(?P<spent>\d{1,12}ms)\s*$", _calibrated),
            _line(
                "hash of the script",
                r"source sha256:(?P<sha256>[0-9a-f]{64})$",
                lambda match: (SourceHash(sha256=match["sha256"]),),
            ),
            _line(
                "validation tokens",
                r"(?:val_tokens|val_loader:.* tokens): ?(?P<tokens>\d{1,15})\s*$",
                _targets,
            ),
            _line("begin of a phase", rf"(?P<what>\w+):start(?:ing)?(?P<rest>(?: {PAIR})+)\s*$", _started),
            _line("training step", r".*train_loss", lambda match: (Training(),)),
            _line(
                "setting of a block",
                r" {1,2}(?P<name>\w+): (?P<value>.*)$",
                lambda match: (Hyperparameters(values={match["name"]: match["value"]}),),
            ),
            _line("settings as JSON", r"\{", _json),
            _line("settings as pairs", PAIRS.pattern, _settings),
        ),
    )
)
