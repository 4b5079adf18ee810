"""Which windows score which targets: every target exactly once.

Position p means: the model reads tokens up to and including tokens[p], the target is tokens[p + 1].
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from codec.errors import UsageError


class Window(NamedTuple):
    """Inputs are tokens[start:stop]; the targets of positions first_scored .. stop - 1 are scored."""

    start: int
    stop: int
    first_scored: int


def plan(targets: int, length: int, stride: int) -> list[Window]:
    """Sliding windows over `targets` positions, in order.

    Each window starts to score where the one before it stopped, so no target is scored twice or left out, at
    the end of the stream too.  The first window scores all its positions; each later one scores `stride` new
    positions (the last maybe fewer) with at least length - stride tokens of context.

    Raises: UsageError unless targets >= 1 and 1 <= stride <= length.
    Source: the challenge's later records (PR 1394 on); the earlier ones scored the tail repeatedly.
    """
    if targets < 1:
        raise UsageError(f"{targets} targets to score, at least 1 is needed", hint="give two tokens")
    if not 1 <= stride <= length:
        raise UsageError(f"stride {stride} with windows of {length} tokens, need 1 <= stride <= length")
    scored = min(length, targets)
    windows = [Window(0, scored, 0)]
    while scored < targets:
        stop = min(scored + stride, targets)
        windows.append(Window(scored + stride - length, stop, scored))
        scored = stop
    return windows


def batches(windows: Sequence[Window], batch: int) -> Iterator[list[Window]]:
    """Neighbouring windows of one shape, at most `batch` together: nothing is ever padded.

    Raises: UsageError for a batch below 1.
    """
    if batch < 1:
        raise UsageError(f"{batch} windows at a time, need at least 1")
    group: list[Window] = []
    for window in windows:
        if group and (len(group) == batch or _shape(window) != _shape(group[0])):
            yield group
            group = []
        group.append(window)
    if group:
        yield group


def _shape(window: Window) -> tuple[int, int]:
    return window.stop - window.start, window.first_scored - window.start
