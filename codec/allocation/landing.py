"""The last stretch of every fit: steps moved together until an artifact is just under its limit."""

from collections.abc import Callable
from typing import Protocol, TypeVar

CLOSE = 10_000  # the part of the limit that may be left over
LEAST = 16  # bytes: no artifact is worth more tries than to come so near
TRIES = 9  # 3 to 5 are usual
FINE = 2.0**-20  # octaves: 36 M weights at 4 bits move by 4 bytes


class Packed(Protocol):
    @property
    def blob(self) -> bytes: ...


Trial = TypeVar("Trial", bound=Packed)


def landed(
    start: Trial,
    limit: int,
    weights: int,
    move: Callable[[float, int], Trial | None],
    finest: float,
    coarsest: float,
) -> tuple[Trial | None, float]:
    """(the largest artifact that fits, its bytes as the last two predicted them); None where all tried are over.

    start: at a shift of 0.  weights: that follow.  move: the trial with steps so many octaves wider, and its number
    from 1 on; None where no step moves.  finest, coarsest: the shifts that are allowed.
    By regula falsi, from a slope of one bit per weight and octave at first; an end that stays counts half each time
    (the Illinois rule), else the other end creeps.
    """
    over: tuple[float, float] | None = None  # (octaves, bytes beyond the aim): the coarsest known to be over
    under: tuple[float, float] | None = None  # the finest known to fit
    was_over = None
    best, trial, shift = None, start, 0.0
    slope, predicted, told = weights / 8, float(len(start.blob)), float(len(start.blob))
    room = max(limit // CLOSE, LEAST)
    aim = limit - room / 2
    for number in range(1, TRIES + 1):
        size = len(trial.blob)
        if size > limit:
            over = shift, size - aim
            under = (under[0], under[1] / 2) if under and was_over else under
        else:
            under = shift, size - aim
            over = (over[0], over[1] / 2) if over and was_over is False else over
            if best is None or size > len(best.blob):
                best, told = trial, predicted
            if limit - size <= room:
                break
        if over and under:
            wanted = over[0] + (under[0] - over[0]) * over[1] / (over[1] - under[1])
        else:
            wanted = shift + (size - aim) / slope * (1.0 if number < 3 else 2.0)
        wanted = min(max(round(wanted / FINE) * FINE, finest), coarsest)
        if wanted == shift or (over and under and not over[0] < wanted < under[0]):
            break  # at an end, or nothing between what was tried
        moved = move(wanted, number)
        if moved is None:
            break
        measured = (size - len(moved.blob)) / (wanted - shift)
        slope = min(max(measured, slope / 8), slope * 2)
        trial, shift, predicted, was_over = moved, wanted, aim, size > limit
    return best, told
