"""Findings of an audit: a sentence with its witness, the same as data, and what the check covered."""

import math
from typing import Any

from verify.audit.trace import Difference
from verify.finding import Finding, Level


def finding(
    rule: str,
    level: Level,
    message: str,
    coverage: dict[str, Any],
    witness: "Difference | dict[str, Any] | None" = None,
) -> Finding:
    """A Finding whose evidence is the witness's values and `coverage`."""
    values = evidence(witness) if isinstance(witness, Difference) else witness or {}
    values = {name: finite(value) if isinstance(value, float) else value for name, value in values.items()}
    return Finding(rule=rule, level=level, message=message, evidence={**values, "coverage": coverage})


def clause(found: Difference) -> str:
    """The witness as a clause."""
    if found.what == "plan":
        return f"record {found.position} is another position: {found.before:.0f} became {found.after:.0f}"
    what = "the score" if found.what == "score" else f"log p of id {found.v}"
    return f"{what} at position {found.position} went from {found.before:.6f} to {found.after:.6f}"


def evidence(found: Difference) -> dict[str, Any]:
    """The witness as data; `changed` counts the values that differ in this run."""
    values: dict[str, Any] = {
        "what": found.what,
        "position": found.position,
        "before": found.before,
        "after": found.after,
        "changed": found.changed,
    }
    return values if found.v is None else {**values, "id": found.v}


def finite(value: float) -> float | str:
    """JSON has no infinity and no NaN."""
    return value if math.isfinite(value) else str(value)
