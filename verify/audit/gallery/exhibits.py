"""What the gallery holds: each scorer registers itself, with the rules that must find it.

@exhibit("two passes", "audit.prefix")
def two_pass(tokens, batch, ranks): ...
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codec.errors import InputError, UsageError
from verify.audit.gallery.toy import Steps, target_bytes
from verify.rules import find


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """One scorer.  story: what it does.  make: gets the folder that holds the text, gives the scorer's steps.

    source: the file that registers it.  caught_by: the rules that must find it; empty for an honest one.
    counted: tokens -> its bytes of each target.  used: the scorer has run before it is audited, as in a script that
    evaluates in several ways.
    """

    name: str
    story: str
    make: Callable[[Path], Steps]
    source: Path
    caught_by: tuple[str, ...] = ()
    counted: Callable[[np.ndarray], np.ndarray] = target_bytes
    used: bool = False


EXHIBITS: dict[str, Exhibit] = {}  # by name, the honest ones first


def exhibit(name: str, *caught_by: str) -> Callable[[Steps], Steps]:
    """Register a generator function as a scorer of the gallery; its docstring is the story.

    Raises: UsageError when the name is taken, or the table has no such rule.
    """

    def register(steps: Steps) -> Steps:
        add_exhibit(name, steps, lambda folder: steps, caught_by)
        return steps

    return register


def exhibit_maker(name: str, *caught_by: str, used: bool = False) -> Callable[..., Callable[[Path], Steps]]:
    """As `exhibit`, for a function that makes the steps, and what they remember, from the folder with the text."""

    def register(make: Callable[[Path], Steps]) -> Callable[[Path], Steps]:
        add_exhibit(name, make, make, caught_by, used=used)
        return make

    return register


def add_exhibit(
    name: str,
    story: Callable[..., object],
    make: Callable[[Path], Steps],
    caught_by: tuple[str, ...],
    *,
    counted: Callable[[np.ndarray], np.ndarray] = target_bytes,
    used: bool = False,
) -> None:
    """Register a scorer.  story: the function whose docstring tells it.

    Raises: as `exhibit`.
    """
    if name in EXHIBITS:
        raise UsageError(f"the gallery has an exhibit `{name}` already")
    EXHIBITS[name] = Exhibit(
        name=name,
        story=" ".join((story.__doc__ or "").split()),
        make=make,
        source=Path(inspect.getfile(story)),
        caught_by=tuple(find(rule).id for rule in caught_by),
        counted=counted,
        used=used,
    )


def find_exhibit(name: str) -> Exhibit:
    """The exhibit of that name.  Raises: InputError when there is none."""
    if name not in EXHIBITS:
        raise InputError(f"there is no exhibit `{name}`", hint=f"there are {', '.join(EXHIBITS)}")
    return EXHIBITS[name]
