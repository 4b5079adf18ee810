"""Curves of bytes and damage, and the choice of steps under one price of a byte."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.allocation.curve import LEAST_SNR, Curve, Point, choose


def curve(*points, weights=800, energy=1e9, finest=-2.0, price=1.0):
    return Curve(points=points, weights=weights, energy=energy, finest=finest, price=price)


def test_between_measurements_bytes_are_straight_and_damage_is_straight_in_decibels():
    one = curve(Point(0, 500, 1.0, None), Point(1, 420, 9.0, None), price=2.0)
    assert one.bytes(np.array([0, 0.5, 1])).tolist() == [500, 460, 420]
    assert one.damage(np.array([0, 0.5, 1])).tolist() == pytest.approx([2, 6, 18])


def test_beyond_them_an_octave_is_a_bit_per_weight_and_6_decibels():
    one = curve(Point(0, 150, 1.0, None))
    assert one.bytes(np.array([-1, 0.5, 1, 2])).tolist() == pytest.approx([250, 150 * 2**-0.5, 75, 37.5])
    assert curve(Point(0, 450, 1.0, None)).bytes(np.array([1])) == 350
    assert one.error(np.array([-1, 1, 2])).tolist() == pytest.approx([0.25, 4, 16])


def test_nats_count_where_they_are_known():
    one = curve(Point(0, 150, 1.0, 0.5), Point(1, 50, 4.0, 1.5), price=100.0)
    assert one.damage(np.array([0.0, 1.0])).tolist() == pytest.approx([0.5, 1.5])


def test_a_new_measurement_replaces_one_of_the_same_step():
    one = curve(Point(0, 150, 1.0, None)).plus(Point(1, 50, 4.0, None)).plus(Point(0, 140, 1.0, None))
    assert [(each.octaves, each.bytes) for each in one.points] == [(0, 140), (1, 50)]


def test_no_candidate_leaves_less_than_6_decibels_but_those_of_the_recipe():
    one = curve(Point(0, 150, 1.0, None), energy=64.0, finest=-1.3)
    steps = one.candidates()
    assert steps[0] == -1.3
    assert steps[-1] == 2  # error 16 of 64
    assert (LEAST_SNR * one.error(steps) <= 64 * (1 + 1e-12)).all()
    coarse = curve(Point(0, 150, 60.0, None), energy=64.0)
    assert coarse.candidates()[-1] == 0  # the recipe's own step is always one


def test_the_finest_where_all_fits_and_the_coarsest_where_nothing_does():
    both = [curve(Point(0, 500, 1.0, None), finest=-1.0), curve(Point(0, 300, 2.0, None), energy=128.0)]
    assert choose(both, 10_000) == [-1.0, -2.0]
    assert choose(both, 0) == [each.candidates()[-1] for each in both]
    assert both[0].bytes(np.array([9.0, 10.0])).tolist() == pytest.approx([500 / 512, 500 / 1024])


def test_equal_tensors_move_alike_and_a_sensitive_one_less():
    plain, sensitive = curve(Point(0, 600, 1.0, None)), curve(Point(0, 600, 1.0, None), price=16.0)
    first, second = choose([plain, plain], 1000)
    assert first == second == pytest.approx(1.0, abs=1 / 32)
    first, second = choose([plain, sensitive], 1000)
    assert first - second == pytest.approx(2.0, abs=1 / 16)  # 4 times the step has 16 times the error
    assert first + second == pytest.approx(2.0, abs=1 / 16)


@given(
    st.lists(
        st.tuples(st.floats(100, 900), st.floats(0.1, 10), st.floats(0.1, 10), st.floats(-1.5, 0)),
        min_size=1,
        max_size=3,
    ),
    st.floats(0, 3000),
)
def test_no_other_choice_is_better_at_its_bytes(drawn, budget):
    """Against every coarser and finer neighbour of two tensors at a time."""
    curves = [
        curve(
            Point(0, size, error, None), Point(1, size * 0.8, error * 3.5, None), price=price, finest=finest, energy=1e4
        )
        for size, error, price, finest in drawn
    ]
    chosen = choose(curves, budget)
    size = sum(float(each.bytes(np.array(at))) for each, at in zip(curves, chosen, strict=True))
    damage = sum(float(each.damage(np.array(at))) for each, at in zip(curves, chosen, strict=True))
    if size > budget:
        assert chosen == [each.candidates()[-1] for each in curves]
        return
    options = [
        [at for at in each.candidates() if abs(at - now) < 0.2] for each, now in zip(curves, chosen, strict=True)
    ]
    for other in itertools.islice(itertools.product(*options), 300):
        its_size = sum(float(each.bytes(np.array(at))) for each, at in zip(curves, other, strict=True))
        its_damage = sum(float(each.damage(np.array(at))) for each, at in zip(curves, other, strict=True))
        assert its_damage >= damage * (1 - 1e-6) or its_size > size * (1 - 1e-9)
