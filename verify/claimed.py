"""The score that submission.json claims, against the one that was measured."""

from decimal import Decimal
from typing import Any

from verify.claims.log_reader import kind_of
from verify.claims.submission_json import number
from verify.rescore import Settings
from verify.scoring.heldout import HeldOut
from verify.scoring.sliding import Score
from verify.submission.folder import Submission
from verify.verdict import Finding, Level

CLAIM_TOLERANCE = 1e-6  # bpb; claims carry 8 decimals, another batch size moves the 8th
LEAST_DECIMALS = 3  # a claim of fewer says too little to agree with anything: 0.002 bpb are a record


def evaluation(score: Score, length: int | None, stride: int) -> dict[str, Any]:
    """How a score by fixed weights was made: `eval` of submission.json, in the words of write_submission_json."""
    return {
        "mode": score.scorer,
        "L": length,
        "S": stride,
        "ttt": None,
        "n_tokens": score.tokens,
        "n_bytes": score.bytes,
    }


def check_claimed_score(submission: Submission, score: Score, heldout: HeldOut, settings: Settings) -> Finding:
    """val_bpb in submission.json against the measured one; it decides when `eval` says the same way and text."""
    rule, claimed = "claims.score", number(submission.claims.get("val_bpb"))
    how, measured = _stated_evaluation(submission), evaluation(score, settings.length, settings.stride)
    if claimed is None or claimed <= 0:
        return Finding(rule=rule, level="unknown", message="submission.json states no val_bpb")
    evidence: dict[str, Any] = {
        "claimed": float(claimed),
        "measured": score.bpb,
        "measured_how": measured,
        "claimed_how": how,
    }
    message = f"submission.json states val_bpb {claimed:.6f}, measured {score.bpb:.6f}"
    other = [f"{key} {value:,.0f}" for key, value in how.items() if key != "mode" and value != measured[key]]
    if "mode" in how and kind_of(how["mode"]) not in ("sliding", "roundtrip"):
        other.append(how["mode"])
    reasons = ["only a part of the text was scored"] if heldout.partial else []
    reasons += [f"its eval states {', '.join(other)}"] if other else []
    level: Level
    if reasons:
        level = "unknown"
        message += f"; not compared: {' and '.join(reasons)}"
    elif _as_stated(claimed, score.bpb):
        level = "pass"
    elif {"L", "S", "n_tokens"} <= how.keys():
        level = "fail"
    else:
        level = "warn" if claimed < score.bpb else "unknown"
        message += "; its eval does not state L, S and n_tokens, so they may be of another evaluation"
    return Finding(rule=rule, level=level, message=message, evidence=evidence)


def _stated_evaluation(submission: Submission) -> dict[str, Any]:
    """What `eval` of submission.json says of windows and text, as far as it can be compared."""
    how = submission.claims.get("eval")
    if not isinstance(how, dict):
        return {}
    told = {key: number(how.get(key)) for key in ("L", "S", "n_tokens", "n_bytes")}
    stated: dict[str, Any] = {key: float(value) for key, value in told.items() if value is not None}
    if isinstance(how.get("mode"), str):
        stated["mode"] = how["mode"]
    return stated


def _as_stated(claimed: Decimal, measured: float) -> bool:
    """Whether the measured number is the claimed one as far as that was written out."""
    exponent = claimed.as_tuple().exponent
    places = min(exponent if isinstance(exponent, int) else 0, -LEAST_DECIMALS)
    return abs(float(claimed) - measured) <= max(CLAIM_TOLERANCE, 0.5000001 * 10.0**places)
