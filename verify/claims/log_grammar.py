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
    Metric,
    ScoreKind,
    Size,
    SourceHash,
    Targets,
    Training,
)

Events = tuple[Event, ...]
Match = re.Match[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineKind:
    """One kind of line.  pattern: matches it from its first character.  read: the match -> what the line says."""

    name: str
    pattern: re.Pattern[str]
    read: Callable[[Match], Events]


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
            if match := kind.pattern.match(line):
                return kind.read(match)
    return None


# --- the field's format, in its dialects, and this toolkit's ----------------------------------------------------------

NUMBER = r"\d{1,12}(?:\.\d{1,20})?"  # bounded, as all digits here: logs come from anywhere
PREFIX = (  # a time stamp in any of the usual forms, then torchrun's name of the process
    r"^(?:\[?(?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?[ |:,-]+)?"
    r"(?:\[?(?:rank|default)\d+\]?:? *)?"
)
WORD = r"[\w+./:=-]+"  # no quotes, braces or brackets: those are source, not a log
PAIR = r"[\w/.]+[:=] ?\S+"
PAIRS = re.compile(rf"{PAIR}(?: {PAIR})*\Z")
UNITS = {"ms": 1000, "s": 1, "m": 1 / 60}  # in a second
TIMES = ("eval_time", "time", "elapsed")  # pairs of a measurement that say what it took, best first
KINDS: tuple[tuple[ScoreKind, str], ...] = (  # the first pattern that a label matches
    ("training", r"(step:)?\d{1,12}/\d{1,12}$"),
    ("prequant_ttt", r".*pre.?quant.*ttt"),
    ("float", r".*(pre.?quant|post.?ema|post.?swa)"),
    ("slot", r".*slot"),
    ("etlb", r".*etlb"),
    ("mixture", r".*(n.?gram|ppm|cache)"),
    ("rescored", r".*(two.?pass|second.?pass|rescor)"),
    ("ttt", r".*ttt"),
    ("sliding", r".*slid"),
    ("roundtrip", r".*(roundtrip|quantized)"),
)
PARTS: dict[str, Literal["model", "code", "total"]] = {
    "Serialized model": "model",
    "Code size": "code",
    "Total submission size": "total",
}


def kind_of(label: str) -> ScoreKind:
    """What a label of the field says was scored, and how."""
    return next((kind for kind, pattern in KINDS if re.match(pattern, label.lower())), "other")


def _measured(match: Match) -> Events:
    found = match.groupdict()
    words = found["label"].rstrip(":").split(" ")
    label = " ".join([words[0], *(word for word in words[1:] if not re.fullmatch(PAIR, word))])
    notes = _pairs(" ".join(words[1:]) + found.get("rest", ""))
    metric = Metric(
        label=label,
        kind=kind_of(label),
        loss=float(found["loss"]) if "loss" in found else None,
        bpb=float(found["bpb"]),
        decimals=len(found["bpb"].partition(".")[2]),
        seconds=next((_seconds(notes[key]) for key in TIMES if key in notes), None),
        notes=notes,
    )
    if metric.kind != "training":
        return (metric,)
    step = int(re.findall(r"\d+", label)[0])
    return metric, Training(step=step, seconds=_seconds(notes.get("train_time", "")))


def _stopped(match: Match) -> Events:
    return (Training(step=int(match["step"]), seconds=int(match["ms"]) / 1000, stopped=True),)


def _size(match: Match) -> Events:
    size = int(match["bytes"].replace(",", ""))
    return (Size(part=PARTS[match["what"]], bytes=size, codec=match["how"].strip()),)


def _calibrated(match: Match) -> Events:
    seconds = _seconds(match["spent"])
    return () if seconds is None else (CalibrationTime(seconds=seconds),)


def _targets(match: Match) -> Events:
    """Also a setting, where the line is nothing but pairs."""
    pairs = PAIRS.match(match.string)
    return Targets(tokens=int(match["tokens"])), *(_settings(pairs) if pairs else ())


def _started(match: Match) -> Events:
    phase, pairs = match["what"], _pairs(match["rest"])
    return (Hyperparameters(values={f"{phase}.{key}": value for key, value in pairs.items()}, phase=True),)


def _settings(match: Match) -> Events:
    return (Hyperparameters(values=_pairs(match.string)),)


def _json(match: Match) -> Events:
    """The object of one line, nested names joined by dots."""
    try:
        return (Hyperparameters(values=dict(_flat(json.loads(match.string)))),)
    except (ValueError, RecursionError):
        return ()


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield name, str(value)
        return
    for key, item in value.items():
        yield from _flat(item, f"{name}.{key}" if name else key)


def _pairs(text: str) -> dict[str, str]:
    return {key: value.rstrip(",") for key, value in re.findall(r"([\w/.]+)[:=] ?(\S+)", text)}


def _seconds(text: str) -> float | None:
    found = re.fullmatch(rf"({NUMBER})(ms|s|m)", text)
    return float(found[1]) / UNITS[found[2]] if found else None


def _line(name: str, pattern: str, read: Callable[[Match], Events]) -> LineKind:
    return LineKind(name=name, pattern=re.compile(pattern), read=read)


FIELD = register(
    LogGrammar(
        name="field",
        lines=(
            _line(
                "measurement",
                rf"{PREFIX}(?P<label>[A-Za-z0-9]{WORD}(?: {WORD})*?),? val_loss[:=] ?(?P<loss>{NUMBER}),? "
                rf"val_bpb[:=] ?(?P<bpb>{NUMBER})(?P<rest>(?:,? {PAIR})*)\s*$",
                _measured,
            ),
            _line(
                "score of test-time training, as pull request 1123 prints it",
                rf"{PREFIX}(?P<label>(?:Legal )?TTT)(?: bpb)?: ?(?P<bpb>\d{{1,2}}\.\d{{4,20}})(?:[ ,(].*)?$",
                _measured,
            ),
            _line(
                "early stop",
                rf"{PREFIX}stopping_early: \S+ train_time: ?(?P<ms>\d{{1,12}})ms step: ?(?P<step>\d{{1,12}})/",
                _stopped,
            ),
            _line(
                "size", rf"{PREFIX}(?P<what>{'|'.join(PARTS)})(?P<how>[^:]*): (?P<bytes>\d[\d,]{{0,20}}) bytes", _size
            ),
            _line(
                "evaluation time",
                rf"{PREFIX}total_eval_time: ?(?P<seconds>{NUMBER})s",
                lambda match: (EvaluationTime(seconds=float(match["seconds"])),),
            ),
            _line("calibration time", rf"{PREFIX}phase_times calibrate:(?P<spent>\d{{1,12}}ms)\s*$", _calibrated),
            _line(
                "hash of the script",
                r"source sha256:(?P<sha256>[0-9a-f]{64})$",
                lambda match: (SourceHash(sha256=match["sha256"]),),
            ),
            _line(
                "validation tokens",
                rf"{PREFIX}(?:val_tokens|val_loader:.* tokens): ?(?P<tokens>\d{{1,15}})\s*$",
                _targets,
            ),
            _line("begin of a phase", rf"{PREFIX}(?P<what>\w+):start(?:ing)?(?P<rest>(?: {PAIR})+)\s*$", _started),
            _line("training step", r".*train_loss", lambda match: (Training(),)),
            _line(
                "setting of a block",
                r"  (?P<name>\w+): (?P<value>.*)$",
                lambda match: (Hyperparameters(values={match["name"]: match["value"]}),),
            ),
            _line("settings as JSON", r"\{", _json),
            _line("settings as pairs", PAIRS.pattern, _settings),
        ),
    )
)
