"""Judges of one log, by itself and against what submission.json states of it."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from codec.budget import PARAMETER_GOLF
from verify.claims.headline import REFUSED, Headline, Refusal, all_seconds, headline, needed_seconds, stated_bpb
from verify.claims.log_events import Metric
from verify.claims.log_reader import Log
from verify.claims.reference_results import CHALLENGE_BYTES, TEXTS, Text
from verify.claims.submission_json import FEW_DECIMALS, Statement, agrees, slips
from verify.finding import Finding, Level, worst
from verify.judges import Judges

SAME_TEXT = 1e-4  # relative: tails cut off and counted again stay below 7e-5, the smallest known byte bug is 1e-2
OTHER_TEXT = 0.3  # relative: byte bugs have been 1 to 20 %; more than this is another text or a part of one
OVERSHOOT = 0.2  # seconds: the cap ends a run after the step that crosses it; records stopped at 600.06 to 600.18 s
LONGEST = 1 << 17  # tokens of a window, of which the end of the text may be left out
WORLD = "8"  # processes: the budgets are for 8 H100


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """A log and what submission.json states, if there is one.  cap: bytes.

    alone: it is the only log, so that a val_bpb stated for no seed is this one's.
    """

    log: Log
    statement: Statement | None = None
    cap: int = PARAMETER_GOLF.total_bytes
    alone: bool = True

    @property
    def result(self) -> Headline:
        """The score that counts.  Raises: InputError when there is none."""
        return headline(self.log, stated_bpb(self.log, self.statement, alone=self.alone))

    @property
    def stated_total(self) -> Decimal | None:
        """Bytes that are stated of this run, or of the whole record."""
        one = self.statement.of(self.log.seed) if self.statement else None
        return one.total if one and one.total is not None else self.statement.total if self.statement else None

    @property
    def stated_bpb(self) -> Decimal | None:
        """Bits per byte that are stated of this very run; of the float weights when only they were scored."""
        if self.statement is not None and not self.result.of_artifact:
            return self.statement.float_bpb if self.alone else None
        return stated_bpb(self.log, self.statement, alone=self.alone)


log_judges = Judges[LogFacts]()


def check_log(
    log: Log, statement: Statement | None = None, cap: int = PARAMETER_GOLF.total_bytes, *, alone: bool = True
) -> tuple[Finding, ...]:
    """Everything that one log shows by itself and against its submission.json; arguments are those of LogFacts.

    Raises: InputError when the log holds no score that counts.
    """
    return log_judges.judge(LogFacts(log=log, statement=statement, cap=cap, alone=alone))


@log_judges("log.bytes")
def check_bytes(facts: LogFacts) -> Finding:
    """Code + model = total, total within the cap, and no less than submission.json states."""
    sizes, cap, rule = facts.log.sizes, facts.cap, "log.bytes"
    if sizes.total is None:
        return Finding(rule=rule, level="not stated", message="states no size of a packed model")
    spare = cap - sizes.total
    room = f"{spare:,} to spare" if spare >= 0 else f"{-spare:,} over the cap of {cap:,}"
    counted = f"{sizes.total:,} bytes"
    if sizes.model is not None and sizes.code is not None:
        counted = f"code {sizes.code:,} + model {sizes.model:,} = {sizes.code + sizes.model:,} bytes"
        if sizes.code + sizes.model != sizes.total:
            counted += f", but states {sizes.total:,}"
    stated = facts.stated_total
    evidence = {"code": sizes.code, "model": sizes.model, "total": sizes.total, "cap": cap, "stated": _float(stated)}
    level: Level = "fail" if spare < 0 or "but states" in counted else "pass"
    message = f"{counted}, {room}"
    if stated is not None and stated < sizes.total:
        level, message = "fail", f"{message}; submission.json states {stated:,}"
    elif level == "pass" and sizes.readable_code:
        level = "warn"
        message += f"; counts a wrapped script, as written it has {sizes.readable_code:,} bytes: it must be what ships"
    return Finding(rule=rule, level=level, message=message, evidence=evidence)


@log_judges("log.implied_bytes")
def check_implied_bytes(facts: LogFacts) -> Finding:
    """Bytes of the text that loss and bpb imply, n loss / (ln 2 bpb), against the known counts.

    Source: the table of rules, log.implied_bytes.
    """
    rule, log = "log.implied_bytes", facts.log
    metrics = [
        metric for metric in log.metrics if metric.loss and 0 < metric.bpb < math.inf and math.isfinite(metric.loss)
    ]
    if not metrics:
        level: Level = "not stated" if all(metric.loss is None for metric in log.metrics) else "unknown"
        return Finding(rule=rule, level=level, message="every loss or bpb is 0 or not stated")
    middle = sorted(metrics, key=_bytes_per_token)[len(metrics) // 2]
    usual = _bytes_per_token(middle)
    for metric in metrics:
        ratio = _bytes_per_token(metric)
        if abs(ratio / usual - 1) > SAME_TEXT + _precision(metric) + _precision(middle):
            return Finding(
                rule=rule,
                level="fail",
                evidence={"line": metric.line, "bytes_per_token": ratio, "other_lines": usual},
                message=f"line {metric.line}, `{metric.label}`, implies {ratio:.5f} bytes per token, the other lines "
                f"{usual:.5f}: another text, or a changed number",
            )
        if contradiction := _contradiction(metric):
            return contradiction
    found = [(known_text(metric, log.targets), metric) for metric in metrics]
    named = [(text, metric) for text, metric in found if text]
    if not named:
        return _unnamed(log.targets, metrics[-1])
    text, metric = max(named, key=lambda pair: (bool(pair[0].flaw), pair[0].recounted, pair[1].line))
    message = f"`{metric.label}` scored {text.tokens:,} tokens of {text.bytes:,} bytes: the {text.what} validation text"
    level = "pass"
    if text.flaw:
        level, message = "warn" if text.superseded else "fail", f"{message}, {text.flaw}"
    elif text.recounted:
        level, message = "warn", f"{message} with {text.recounted:,} targets of its tail counted again"
    return Finding(
        rule=rule,
        level=level,
        message=message,
        evidence={metric.label: {"tokens": text.tokens, "bytes": text.bytes} for text, metric in named},
    )


@log_judges("log.headline")
def check_headline(facts: LogFacts) -> Finding:
    """The last legal score is the one that submission.json states for this seed."""
    log, result, stated = facts.log, facts.result, facts.stated_bpb
    taken = result.metric
    evidence: dict[str, Any] = {
        "taken": {"label": taken.label, "bpb": taken.bpb, "line": taken.line},
        "stated": _float(stated),
        "refused": [
            {"label": each.metric.label, "bpb": each.metric.bpb, "reasons": list(each.reasons)}
            for each in result.refused
        ],
        "unread": [{"line": each.line, "text": each.text, "why": each.why} for each in log.unread],
    }
    last = f"`{taken.label}` {taken.bpb:.{taken.decimals}f}"
    shown = [
        each.metric
        for each in result.refused
        if stated is not None and agrees(stated, each.metric.bpb, each.metric.decimals)
    ]
    level: Level
    if stated is not None and agrees(stated, taken.bpb, taken.decimals):
        level, message = "pass", f"{last} is what submission.json states"
        if abs(float(stated) - taken.bpb) > FEW_DECIMALS:
            level, message = "warn", f"submission.json states {stated}, rounded from {last}"
    elif stated is not None and not shown and slips(stated, taken.bpb, taken.decimals):
        level, message = "warn", f"submission.json states {stated} for {last}: one more or less in the last digit"
    elif shown:
        why = next(each for each in result.refused if each.metric is shown[0])
        level, message = "fail", f"{_refusal(why)}; the last legal score is {last}"
    elif stated is not None:
        level, message = "fail", f"the last legal score is {last}, submission.json states {stated}{_which(log, stated)}"
    elif result.refused:
        level, message = "warn", f"{_refusal(result.refused[0])}; taken instead: {last}"
    else:
        level, message = "pass", f"{last} is the last legal score"
    if result.last:
        level = worst((level, "warn"))
        message += f", a legal score; the last one is `{result.last.label}` {result.last.bpb:.{result.last.decimals}f}"
    unsure = [each.metric for each in result.refused if each.metric.kind == "other"]
    if result.unread or unsure:
        what = str(result.unread[0]) if result.unread else f"line {unsure[0].line}, `{unsure[0].label}`, is unknown"
        many = len(result.unread) + len(unsure)
        level = level if level == "fail" else "unknown"
        message += f"; {what}" + (f", and {many - 1} more" if many > 1 else "") + ": it may be the result"
    if cut := next((each for each in log.unread if each.scored), None):
        message += f"; line {cut.line}: {cut.why}, what it says behind its score is lost"
    if result.broken:
        level, message = "fail", f"the last score, line {result.broken.line}, `{result.broken.label}`, is not finite"
    if level == "pass" and not result.of_artifact:
        claimed = facts.statement is not None and facts.statement.bpb is not None
        level = "unknown" if claimed else "not stated"
        message = f"no score of a packed model; {last} is of float weights"
    return Finding(rule="log.headline", level=level, message=message, evidence=evidence)


@log_judges("log.budget")
def check_budget(facts: LogFacts) -> Finding:
    """Training, with calibration, and evaluation within their seconds; decided only for logs of 8 processes."""
    log, result = facts.log, facts.result
    trained, everything, budget = log.train_seconds, all_seconds(log), PARAMETER_GOLF
    claimed = result.refused[0].metric if result.refused else result.metric
    needed = needed_seconds(log, claimed)
    evidence = {
        "train": trained,
        "calibrate": log.calibrate_seconds,
        "eval_all": everything,
        "eval_needed": needed,
        "world_size": _world(log),
    }
    parts: list[tuple[Level, str]] = []
    if trained is not None:
        calibrated = log.calibrate_seconds or 0.0
        over = trained + calibrated - budget.train_seconds
        within: Level = "pass" if over <= 0 else "warn" if over <= OVERSHOOT else "fail"
        text = f"training {trained:.2f}"
        if calibrated:
            text += f" + calibration {calibrated:.2f} = {trained + calibrated:.2f}"
        parts.append((within, f"{text} of {budget.train_seconds} s"))
    if everything is not None:
        text = f"evaluation {everything:.1f} of {budget.eval_seconds} s"
        if everything <= budget.eval_seconds:
            parts.append(("pass", text))
        else:
            enough = needed is not None and needed <= budget.eval_seconds
            parts.append(("warn" if enough else "fail", f"{text}, needed for `{claimed.label}`: {needed or 0:.1f}"))
    if not parts:
        return Finding(rule="log.budget", level="not stated", message="states no times")
    level = worst(level for level, _ in parts)
    message = ", ".join(text for _, text in parts)
    if level == "fail" and unlimited(facts):
        level, message = "warn", f"{message}; its track has no limit of time"
    if level == "fail" and _world(log) != WORLD:
        level, message = "unknown", f"{message}; by {_world(log) or 'an unstated number of'} processes, not {WORLD}"
    return Finding(rule="log.budget", level=level, message=message, evidence=evidence)


def unlimited(facts: LogFacts) -> bool:
    """Whether the run was made for a track without a limit of time, by its submission.json or its folder."""
    track = str(facts.statement.raw.get("track", "")) if facts.statement else ""
    folders = facts.log.path.absolute().parts[-4:-1]
    return bool(re.search(r"non.?record|unlimited", track)) or any(
        re.match("track_non_record", name) for name in folders
    )


def _bytes_per_token(metric: Metric) -> float:
    return (metric.loss or 0.0) / (math.log(2) * metric.bpb)


def _precision(metric: Metric) -> float:
    """Relative error of bytes per token that comes from the digits printed."""
    of_loss = metric.decimals if metric.loss_decimals is None else metric.loss_decimals
    return 0.5 * (10.0**-of_loss / (metric.loss or 1.0) + 10.0**-metric.decimals / metric.bpb)


def known_text(metric: Metric, targets: int | None) -> Text | None:
    """The known text that the score was made on; only scores with enough digits can tell (8: within 1 byte)."""
    if not metric.loss or metric.bpb <= 0:
        return None
    precision = _precision(metric)
    if precision > SAME_TEXT / 100:
        return None
    ratio = _bytes_per_token(metric)
    candidates = [text for text in TEXTS if targets in (None, text.tokens - text.recounted)]
    return next(
        (text for text in candidates if abs(text.tokens * ratio - text.bytes) <= 2 + text.bytes * precision), None
    )


def stated_text(metric: Metric) -> tuple[int, int] | None:
    """(tokens, bytes) as the line of the score states them itself: `tokens:6156 bytes:13176`."""
    tokens, size = metric.notes.get("tokens", ""), metric.notes.get("bytes", "")
    return (int(tokens), int(size)) if re.fullmatch(r"\d{1,15}", tokens) and re.fullmatch(r"\d{1,15}", size) else None


def _contradiction(metric: Metric) -> Finding | None:
    """What is wrong with the bytes that the line itself states: its loss and bpb imply others."""
    tokens, size = stated_text(metric) or (0, 0)
    implied = tokens * _bytes_per_token(metric)
    if abs(implied - size) <= 2 + size * _precision(metric):
        return None
    return Finding(
        rule="log.implied_bytes",
        level="fail",
        evidence={"line": metric.line, "tokens": tokens, "bytes": size, "implied": implied},
        message=f"line {metric.line}, `{metric.label}`, states {size:,} bytes of {tokens:,} tokens, its loss and bpb "
        f"imply {implied:,.0f}",
    )


def _unnamed(targets: int | None, metric: Metric) -> Finding:
    rule = "log.implied_bytes"
    if targets is None:
        return Finding(
            rule=rule, level="unknown", message="states no number of validation tokens, and no known one fits"
        )
    implied = targets * _bytes_per_token(metric)
    off = implied / CHALLENGE_BYTES - 1
    message = f"{targets:,} tokens imply {implied:,.0f} bytes, {off:+.4%} from the challenge's validation text"
    evidence = {"tokens": targets, "bytes": implied, "relative": off}
    if abs(off) <= SAME_TEXT + _precision(metric) or _cut_tail(targets, implied, _precision(metric)):
        return Finding(rule=rule, level="pass", message=message, evidence=evidence)
    if abs(off) < OTHER_TEXT:
        message += ": bytes are counted wrong, or another text was scored"
        return Finding(rule=rule, level="fail", message=message, evidence=evidence)
    return Finding(rule=rule, level="unknown", message=f"{message}: another text", evidence=evidence)


def _cut_tail(targets: int, implied: float, precision: float) -> bool:
    """Whether the score is of a known text but for its last tokens, too few for a window of a long context."""
    for text in TEXTS:
        missing = text.tokens - targets
        rest = text.bytes * targets / text.tokens
        if not text.flaw and 0 < missing < LONGEST and abs(implied / rest - 1) <= SAME_TEXT / 2 + precision:
            return True
    return False


def _refusal(refusal: Refusal) -> str:
    metric = refusal.metric
    return f"`{metric.label}` {metric.bpb:.{metric.decimals}f} is refused: {'; '.join(refusal.reasons)}"


def _which(log: Log, stated: Decimal) -> str:
    """Which other score of the log the stated number is, if any."""
    other = next((metric for metric in log.metrics if agrees(stated, metric.bpb, metric.decimals)), None)
    if other is None:
        return ", which is none of the log's scores"
    return f", which is `{other.label}`" + (f": {REFUSED[other.kind]}" if other.kind in REFUSED else "")


def _world(log: Log) -> str:
    return log.settings.get("world_size", "")


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
