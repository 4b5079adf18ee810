"""One checked rule with its level, message and evidence."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from codec.errors import UsageError, printable
from verify.rules import find

Level = Literal["pass", "fail", "warn", "unknown", "not stated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One checked rule, by its id in the table of rules.

    level: warn, look at it; unknown, not decided, the message says why; not stated, a claim that nobody made.

    A message that quotes a submission cannot act on a terminal or look like two; evidence is for JSON, and as it was.
    Raises: UsageError when the table has no such rule, or when there is no such level.
    """

    rule: str
    level: Level
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        find(self.rule)
        if self.level not in get_args(Level):
            raise UsageError(f"`{self.level}` is no level of a finding", hint=f"levels: {', '.join(get_args(Level))}")
        object.__setattr__(self, "message", printable(self.message))


def worst(levels: Iterable[Level]) -> Level:
    """The most serious of several levels."""
    order: tuple[Level, ...] = ("fail", "warn", "unknown", "not stated", "pass")
    present = set(levels)
    return next(level for level in order if level in present)
