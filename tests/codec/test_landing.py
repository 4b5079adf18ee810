"""Landing under a limit, on curves whose every size is known."""

from dataclasses import dataclass

import pytest

from codec.allocation.landing import CLOSE, LEAST, TRIES, landed

LIMIT, WEIGHTS = 200_000, 80_000  # a slope of 10,000 bytes per octave
ROOM = max(LIMIT // CLOSE, LEAST)


@dataclass(frozen=True)
class Trial:
    shift: float
    blob: bytes


def land(size, finest=-12.0, coarsest=8.0):
    """size: bytes at a shift -> (best, predicted, the trials that were made)."""
    tried = [Trial(0.0, bytes(round(size(0.0))))]

    def move(shift, number):
        assert number == len(tried)
        tried.append(Trial(shift, bytes(round(size(shift)))))
        return tried[-1]

    return *landed(tried[0], LIMIT, WEIGHTS, move, finest, coarsest), tried


@pytest.mark.parametrize("start", [205_000, 195_000])
def test_where_the_slope_is_a_bit_per_weight_and_octave_one_move_lands_in_the_middle_of_the_room(start):
    best, predicted, tried = land(lambda shift: start - WEIGHTS / 8 * shift)
    assert len(tried) == 2
    assert best is tried[1]
    assert len(best.blob) == pytest.approx(LIMIT - ROOM / 2, abs=1)
    assert predicted == LIMIT - ROOM / 2


@pytest.mark.parametrize("slope", [0.5, 0.8, 1.5, 2.0])
@pytest.mark.parametrize("start", [180_000, 210_000, 220_000])
def test_it_lands_within_the_room_on_a_bent_curve(start, slope):
    best, _, tried = land(lambda shift: start * 2 ** (-slope * WEIGHTS / 8 / start * shift))
    assert LIMIT - ROOM <= len(best.blob) <= LIMIT
    assert len(tried) <= TRIES + 1


def test_the_largest_that_fits_is_kept_though_later_ones_are_smaller():
    """A curve that leaps over the limit at a quarter and then climbs: nothing lies within the room."""
    best, _, tried = land(lambda shift: 203_000 - 10_000 * shift if shift < 0.25 else 197_000 + 3_000 * shift)
    fitting = [len(each.blob) for each in tried if len(each.blob) <= LIMIT]
    assert fitting[-1] < max(fitting) == len(best.blob)
    assert len(tried) <= TRIES + 1


def test_at_an_end_it_stops():
    best, _, tried = land(lambda shift: 1_000 - 100 * shift)
    assert best.shift == tried[-1].shift == -12
    best, _, tried = land(lambda shift: 900_000 - 100 * shift)
    assert best is None
    assert tried[-1].shift == 8


def test_where_no_step_moves_the_start_fits_or_does_not():
    for size, fits in ((LIMIT - 5_000, True), (LIMIT + 1, False)):
        start = Trial(0.0, bytes(size))
        best, predicted = landed(start, LIMIT, WEIGHTS, lambda shift, number: None, -12.0, 8.0)
        assert (best is start) == fits
        assert predicted == size
