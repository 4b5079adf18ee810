"""Writes what logs show as the object of a submission.json."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from codec.errors import InputError, UsageError
from verify.claims.headline import headline
from verify.claims.log_reader import Log
from verify.claims.log_rules import known_text, stated_text
from verify.claims.runs import Group
from verify.claims.significance import Comparison
from verify.claims.submission_json import number
from verify.finding import Finding

WORDS = ("author", "github_id", "name", "blurb", "date", "track")  # said by people: kept from the earlier file, or null
PLACE = ("hardware", "pytorch_version")
DIGITS = 8  # as the field's logs print


def as_submission_json(
    group: Group, findings: Sequence[Finding], comparison: Comparison | None, said: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The runs as submission.json: every number recomputed from the logs, null where they do not show it.

    said: what people say, by WORDS and PLACE; default: what the group's submission.json says.

    Raises: UsageError without logs; InputError when a log has no seed, a seed comes twice, or a log holds no legal
    score of a packed model.
    Source: the survey of 55 records behind verify.claims.submission_json; names are those most of them use.
    """
    if not group.logs:
        raise UsageError("there are no logs to write a submission.json from", hint="pass the logs, or their folder")
    results = {str(seed_of(log)): _result(log) for log in sorted(group.logs, key=seed_of)}
    if len(results) < len(group.logs):
        raise InputError("two logs are of the same seed", where=group.logs[-1].name, hint="pass one log for each seed")
    if said is None:
        said = group.statement.raw if group.statement else {}
    losses = group.losses
    totals = [log.sizes.total for log in group.logs if log.sizes.total is not None]
    codes = [log.sizes.code for log in group.logs if log.sizes.code is not None]
    tokenizer = group.logs[0].settings.get("tokenizer_sha256")
    return {
        **{key: _text(said.get(key)) for key in WORDS},
        "val_bpb": _rounded(group.sample.mean),
        "val_bpb_std": _rounded(group.sample.sd),
        "val_loss": _rounded(losses.mean) if losses else None,
        "val_loss_std": _rounded(losses.sd) if losses else None,
        "seeds": [int(seed) for seed in results],
        "seed_results": results,
        "bytes_total": max(totals, default=None),
        "bytes_code": max(codes, default=None),
        **{key: _text(said.get(key)) for key in PLACE},
        "tokenizer": {"sha256": tokenizer} if tokenizer else None,
        "eval": _evaluation(group.logs[0]),
        "compliance": {finding.rule: finding.level for finding in findings if finding.rule.startswith("log.")},
        "significance": _significance(comparison) if comparison else None,
    }


def _result(log: Log) -> dict[str, Any]:
    result = headline(log)
    if not result.of_artifact:
        raise InputError(
            f"holds no legal score of a packed model, only `{result.metric.label}` of float weights",
            where=str(log.path),
            hint="log a score of the packed model",
        )
    tokens, size = _text_size(log)
    seconds = result.metric.seconds
    return {
        "val_bpb": result.metric.bpb,
        "val_loss": result.metric.loss,
        "artifact_bytes": log.sizes.total,
        "code_bytes": log.sizes.code,
        "model_bytes": log.sizes.model,
        "train_time_ms": None if log.train_seconds is None else round(log.train_seconds * 1000),
        "eval_time_ms": None if seconds is None else round(seconds * 1000),
        "steps": log.steps,
        "n_tokens": tokens,
        "n_bytes": size,
    }


def _text_size(log: Log) -> tuple[int | None, int | None]:
    """Targets and bytes of the text that was scored: of a known one, else as the line of the score states them."""
    metric = headline(log).metric
    if text := known_text(metric, log.targets):
        return text.tokens, text.bytes
    return stated_text(metric) or (None, None)


def seed_of(log: Log) -> int:
    """The seed of the log.  Raises: InputError when it names none."""
    if log.seed is None:
        raise InputError(
            "names no seed, neither inside nor in its name", where=str(log.path), hint="add `seed:N` to it"
        )
    return log.seed


def _evaluation(log: Log) -> dict[str, Any]:
    """In the words that `verify.run_rules.evaluation` uses."""
    metric, settings = headline(log).metric, log.settings
    tokens, size = _text_size(log)
    stride = metric.notes.get("stride", settings.get("eval_stride"))
    length = metric.notes.get("seq_len", settings.get("eval_seq_len", settings.get("model.seq_len")))
    return {
        "mode": metric.label,
        "L": _integer(length),
        "S": _integer(stride),
        "ttt": _adaptation(settings) if metric.kind == "ttt" else None,
        "n_tokens": tokens or log.targets,
        "n_bytes": size,
    }


def _adaptation(settings: dict[str, str]) -> dict[str, Any]:
    """The settings of test-time training, numbers as numbers."""
    numbers = {key: (number(value), value) for key, value in settings.items() if key.startswith("ttt")}
    return {key: text if value is None else _plain(value) for key, (value, text) in numbers.items()}


def _significance(comparison: Comparison) -> dict[str, Any]:
    return {
        "against_bpb": _rounded(comparison.against.mean),
        "shift_bpb": _rounded(comparison.shift),
        "threshold_bpb": _rounded(comparison.threshold),
        "tests": [outcome.to_dict() for outcome in comparison.tests],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
