"""The checks of an audit: each judges what was measured by one rule of the table, and registers itself here.

    @check("audit.prefix")
    def check_causality(measured: Measurements) -> Judgement: ...

A check runs no scorer and opens no file: whatever it needs was measured before.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

from codec.errors import UsageError
from verify.audit.evidence import finding
from verify.audit.measurements import Measurements
from verify.audit.trace import Difference
from verify.finding import Finding, Level
from verify.judges import Judges
from verify.rules import RULES

Check = Callable[[Measurements], Finding]
audit_judges = Judges[Measurements]()


class Judgement(NamedTuple):
    """What a check concludes.  coverage: how far it looked, as data.  witness: the values that show it."""

    level: Level
    message: str
    coverage: dict[str, Any]
    witness: Difference | dict[str, Any] | None = None


def check(rule: str) -> Callable[[Callable[[Measurements], Judgement]], Check]:
    """Register a function as the check of a rule; it then gives Findings of that rule.

    Raises: UsageError when the table has no such rule, or the rule has a check.
    """
    if rule in audit_judges.rules:
        raise UsageError(f"rule `{rule}` has a check already")
    register = audit_judges(rule)

    def checked_by(function: Callable[[Measurements], Judgement]) -> Check:
        @wraps(function)
        def found(measured: Measurements) -> Finding:
            return finding(rule, *function(measured))

        return register(found)

    return checked_by


def short_names() -> dict[str, str]:
    """Rule -> its number in the table of rules, of every rule that has a check; the id itself where it has none."""
    return {rule: RULES[rule].number or rule for rule in RULES if rule in audit_judges.rules}
