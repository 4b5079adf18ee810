"""The checks of a card, in the order in which they run: what comes first is known even if the time ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from codec.errors import UsageError
from codec.suggestion import did_you_mean
from pgolf.doctor.checks.attention import attention
from pgolf.doctor.checks.collectives import collectives
from pgolf.doctor.checks.packing import packing
from pgolf.doctor.checks.precision import precision
from pgolf.doctor.checks.sandboxed import sandboxed
from pgolf.doctor.checks.scoring import scoring
from pgolf.doctor.checks.training import steps
from pgolf.doctor.outcome import Measured
from pgolf.doctor.plan import Plan

H100_PRESETS = {"pr162": 50, "pr1716": 90, "pr1176": 50, "pr339": 50, "baseline": 40}  # 1716 is compiled twice


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """run: called in a process of its own with the plan and the seconds that it may take.

    weight: its share of the time, in seconds of a card by guess until one was measured; the check ends itself after
    what fits.
    """

    name: str
    title: str
    weight: float
    run: Callable[[Plan, float], Measured]


CHECKS = (
    Check(name="attention", title="attention against float32", weight=20, run=attention),
    Check(name="precision", title="a bfloat16 step against float32", weight=20, run=precision),
    Check(name="collectives", title="NCCL on one rank", weight=15, run=collectives),
    Check(name="sandbox", title="a sandboxed verify", weight=40, run=sandboxed),
    *(
        Check(name=f"step:{name}", title=f"steps of {name}", weight=weight, run=partial(steps, name))
        for name, weight in H100_PRESETS.items()
    ),
    Check(name="scorers", title="sliding, TTT and SLOT", weight=30, run=scoring),
    Check(name="packing", title="calibration and pack", weight=45, run=packing),
)


def choose(names: Sequence[str]) -> tuple[Check, ...]:
    """The checks of these names, all without one.

    Raises: UsageError for a name that there is not.
    """
    known = [check.name for check in CHECKS]
    for name in names:
        if name not in known:
            hint = f"{did_you_mean(name, known)} checks: {', '.join(known)}".lstrip()
            raise UsageError(f"there is no check `{name}`", hint=hint)
    return tuple(check for check in CHECKS if not names or check.name in names)
