"""Findings and verdicts as tables, the same in every subcommand."""

import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from verify.finding import Finding
    from verify.verdict import Verdict


def print_findings(findings: "Sequence[Finding]", *, most: int | None = None, wrap: bool = False) -> None:
    """Level, rule and message of each.

    most: of the warnings of one rule, the first so many; all else is shown.  wrap: to the terminal's width, below the
    message's column.
    """
    width = shutil.get_terminal_size(fallback=(120, 24)).columns
    seen = Counter[str]()
    for finding in findings:
        seen[finding.rule] += finding.level == "warn"
        if most is None or finding.level != "warn" or seen[finding.rule] <= most:
            head = _head(finding.level, finding.rule)
            line = head + finding.message
            click.echo(textwrap.fill(line, width, subsequent_indent=" " * len(head)) if wrap else line)
    for rule, count in seen.items():
        if most is not None and count > most:
            click.echo(f"{_head('warn', rule)}and {count - most} more of these (--json has all)")


def outcome(verdict: "Verdict") -> list[str]:
    """How many rules were checked, and by name which of them do not hold, were not stated, or not decided: if any."""
    names = {
        "not stated": verdict.not_stated,
        "not decided": verdict.undecided,
        "warned": verdict.warned,
        "failed": verdict.failed,
    }
    hold, checked = len(verdict.checked), len((*verdict.checked, *verdict.warned, *verdict.failed))
    counted = f"checked: {checked} rules, {'all hold' if hold == checked else f'{hold} hold'}"
    return [counted, *(f"{name}: {', '.join(rules)}" for name, rules in names.items() if rules)]


def _head(level: str, rule: str) -> str:
    return f"{level:<10} {rule:<20} "
