"""Which of a log's scores counts: the last legal one."""

import re
from dataclasses import dataclass

from codec.budget import PARAMETER_GOLF
from codec.errors import InputError
from verify.claims.log_events import Metric, ScoreKind
from verify.claims.log_reader import Log

REFUSED: dict[ScoreKind, str] = {
    "slot": "SLOT: a delta fitted on the targets it scores, or shared with rows that were, breaks strict causal "
    "dependence; a log cannot show one that is fitted per row on context only",
    "etlb": "ETLB: adapts a bias on the vocabulary; nobody has ruled on it",
    "mixture": "n-gram or byte mixture: a log cannot show that the mixed probabilities sum to one",
    "rescored": "a second pass: every target was scored and used before",
    "prequant_ttt": "trained on validation tokens before they were scored",
    "float": "the score of float weights, not of the artifact",
    "training": "the score of float weights, not of the artifact",
    "other": "an unknown label: it cannot be told what was scored",
}
HIDDEN = (  # settings that change what a harmless label means: pattern, kinds it spoils, why
    (r"slot_in_ttt$", ("ttt",), "its settings say slot_in_ttt: " + REFUSED["slot"]),
    (
        r"pre_?quant_ttt(_enabled)?$",
        ("roundtrip", "sliding", "ttt"),
        "its settings say prequant_ttt: " + REFUSED["prequant_ttt"],
    ),
)
ADAPTIVE = ("ttt", "slot", "etlb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A score that does not count, and why."""

    metric: Metric
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A log's result: its last legal score.  refused: scores of the artifact that came later, last first.

    of_artifact: False when the log has no legal score of a packed model; then it is the last one of float weights.
    """

    metric: Metric
    refused: tuple[Refusal, ...]
    of_artifact: bool


def headline(log: Log) -> Headline:
    """The last score whose label and settings speak for a legal procedure; a label proves nothing, an audit does.

    Raises: InputError when not even float weights were scored.
    Source: docs/rules.md, log.headline.
    """
    refused: list[Refusal] = []
    for metric in reversed(log.metrics):
        if metric.kind in ("training", "float"):
            continue
        reasons = _reasons(log, metric)
        if not reasons:
            return Headline(metric=metric, refused=tuple(refused), of_artifact=True)
        refused.append(Refusal(metric=metric, reasons=reasons))
    floats = [metric for metric in log.metrics if metric.kind in ("training", "float")]
    if not floats:
        raise InputError(
            f"holds no score that counts: `{refused[0].metric.label}` is {refused[0].reasons[0]}",
            where=str(log.path),
            hint="log a roundtrip, sliding or score-first TTT score",
        )
    return Headline(metric=floats[-1], refused=tuple(refused), of_artifact=False)


def needed_seconds(log: Log, metric: Metric) -> float | None:
    """Evaluation time of one score: its own pass, and for a refused one the adaptive passes it starts from."""
    before = [each for each in log.metrics if each.kind in ADAPTIVE and each.line < metric.line]
    passes = [*before, metric] if metric.kind in REFUSED else [metric]
    known = [each.seconds for each in passes if each.seconds is not None]
    return sum(known) if known else None


def all_seconds(log: Log) -> float | None:
    """Evaluation time of every pass over the packed model, or the log's own total where that is more."""
    known = [each.seconds for each in log.metrics if each.kind not in ("training", "float") and each.seconds]
    passes = sum(known) if known else None
    return max((value for value in (passes, log.eval_seconds) if value is not None), default=None)


def _reasons(log: Log, metric: Metric) -> tuple[str, ...]:
    reasons = [REFUSED[metric.kind]] if metric.kind in REFUSED else []
    reasons += [
        why
        for pattern, kinds, why in HIDDEN
        if metric.kind in kinds and any(re.search(pattern, key) and _true(log.settings[key]) for key in log.settings)
    ]
    earlier = [each for each in log.metrics if each.line < metric.line]
    if any(each.kind == "prequant_ttt" for each in earlier):
        reasons.append("the weights were " + REFUSED["prequant_ttt"])
    trained = next((each for each in earlier if each.kind == "ttt"), None)
    if reasons and trained and metric.kind != "ttt":
        reasons.append(f"it follows `{trained.label}`: on the weights that leaves, every target was already trained on")
    seconds = needed_seconds(log, metric)
    if reasons and seconds and seconds > PARAMETER_GOLF.eval_seconds:
        reasons.append(f"it needs {seconds:.1f} s of evaluation, {PARAMETER_GOLF.eval_seconds} allowed")
    return tuple(reasons)


def _true(text: str) -> bool:
    return text.strip().lower() in ("true", "1")
