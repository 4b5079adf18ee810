"""What a check found: rows of numbers, what is outside its tolerance, or why there is nothing."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pgolf.doctor.machine import Machine

Value = str | int | float | None
Row = dict[str, Value]  # column -> value; None is "not measured"
State = Literal["ok", "wrong", "failed", "not measured"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a check returns.  wrong: what is outside its stated tolerance, a sentence each.

    notes: what the numbers do not say, and what was not measured.
    """

    rows: tuple[Row, ...]
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A check that was to run.  seconds: it took.  error: why it failed, or was not begun."""

    name: str
    title: str
    state: State
    seconds: float
    measured: Measured = field(default=Measured(rows=()))
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """All checks of one run.  dry: on a CPU, with small models."""

    dry: bool
    machine: Machine
    limit: float
    seconds: float
    outcomes: tuple[Outcome, ...]

    @property
    def holds(self) -> bool:
        """Whether no check failed or found something wrong; what was not begun says nothing."""
        return all(each.state in ("ok", "not measured") for each in self.outcomes)

    @property
    def headline(self) -> str:
        """One line: what was measured, and on what."""
        if self.dry:
            return "DRY RUN ON A CPU with small models: nothing was measured on a GPU"
        return f"measured on {self.machine.gpus[0].name}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "headline": self.headline, "holds": self.holds}
