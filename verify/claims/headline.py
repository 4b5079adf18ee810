"""Which of a log's scores counts: the last legal one."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal

from codec.budget import PARAMETER_GOLF
from codec.errors import InputError
from verify.claims.log_events import Metric, ScoreKind
from verify.claims.log_reader import Log, Unread
from verify.claims.submission_json import Statement, agrees

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
    "diagnostic": "a measurement on the way, not of all targets",
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
    last: the last legal score, where submission.json states an earlier one of the same artifact.  broken: a later score
    that is not finite.  unread: later lines that may hold a score.
    """

    metric: Metric
    refused: tuple[Refusal, ...]
    of_artifact: bool
    last: Metric | None = None
    broken: Metric | None = None
    unread: tuple[Unread, ...] = ()


def headline(log: Log, stated: Decimal | None = None) -> Headline:
    """The last score whose label and settings speak for a legal procedure; a label proves nothing, an audit does.

    stated: of this run by submission.json; it may choose an earlier legal score that the log shows, as the passes over
    an artifact can be run in any order.

    Raises: InputError when the run was killed in training, or not even float weights were scored.
    Source: docs/rules.md, log.headline.
    """
    if log.killed:
        raise InputError(
            f"was killed in training at step {log.steps or 0}, before it had a score",
            where=f"{log.path}, run {log.run}" if log.runs > 1 else str(log.path),
            hint="pass the log of a run that ended",
        )
    refused: list[Refusal] = []
    legal: list[Metric] = []
    packed = [metric for metric in log.metrics if metric.kind not in ("training", "float", "diagnostic")]
    finite = [metric for metric in packed if math.isfinite(metric.bpb)]
    for metric in reversed(finite):
        reasons = _reasons(log, metric)
        if not reasons:
            legal.append(metric)
        elif not legal:
            refused.append(Refusal(metric=metric, reasons=reasons))
    floats = [metric for metric in log.metrics if metric.kind in ("training", "float") and math.isfinite(metric.bpb)]
    if not legal and not floats:
        why = f"`{refused[0].metric.label}` is {refused[0].reasons[0]}" if refused else "none is a finite number"
        raise InputError(
            f"holds no score that counts: {why}",
            where=str(log.path),
            hint="log a roundtrip, sliding or score-first TTT score",
        )
    last = legal[0] if legal else floats[-1]
    chosen = next((each for each in legal if stated is not None and agrees(stated, each.bpb, each.decimals)), last)
    return Headline(
        metric=chosen,
        refused=tuple(refused),
        of_artifact=bool(legal),
        last=last if chosen is not last else None,
        broken=next((each for each in packed if each.line > last.line and not math.isfinite(each.bpb)), None),
        unread=tuple(each for each in log.unread if each.line > last.line and not each.scored),
    )


def stated_bpb(log: Log, statement: Statement | None, *, alone: bool) -> Decimal | None:
    """Bits per byte that submission.json states of this very run, or, when it is the only one, of the whole record."""
    one = statement.of(log.seed) if statement else None
    if statement is None or (one and one.bpb is not None):
        return one.bpb if one else None
    return statement.bpb if alone and len(statement.seed_numbers) < 2 else None


def needed_seconds(log: Log, metric: Metric) -> float | None:
    """Evaluation time of one score: its own pass, and for a refused one the adaptive passes it starts from."""
    before = [each for each in log.metrics if each.kind in ADAPTIVE and each.line < metric.line]
    passes = [*before, metric] if metric.kind in REFUSED else [metric]
    known = [each.seconds for each in passes if each.seconds is not None]
    return sum(known) if known else None


def all_seconds(log: Log) -> float | None:
    """Evaluation time of every pass over the packed model, or the log's own total where that is more."""
    known = [
        each.seconds for each in log.metrics if each.kind not in ("training", "float") and each.seconds is not None
    ]
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
