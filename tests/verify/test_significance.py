"""The tests of significance: published results, printed tables, closed forms, and integration by Simpson's rule."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify.claims.reference_results import RECORDS
from verify.claims.significance import SeedScores, compare, normal_cdf, student_cdf


def of(*values):
    return SeedScores(values=values)


def ratio(record):
    return of(*record.bpb).mean / of(*record.loss).mean


def test_1716_as_published_and_what_z_hides():
    record = RECORDS["1716"]
    found = compare(of(*record.bpb), of(1.08100), ratio(record))
    assert found.sample.mean == pytest.approx(1.07881679, abs=5e-9)
    assert found.sample.sd == pytest.approx(1.4293e-4, abs=5e-9)
    assert found.bpb_per_nat == pytest.approx(0.3871585869, abs=5e-11)
    assert found.shift == pytest.approx(0.00193579, abs=5e-9)
    assert found.threshold == pytest.approx(1.0790642071, abs=5e-11)
    assert found.margin == pytest.approx(0.00024741, abs=5e-9)
    z, t = found.test("z", shifted=True), found.test("t", shifted=True)
    assert z.statistic == t.statistic == pytest.approx(-2.998196, abs=5e-7)
    assert z.p == pytest.approx(0.00135792, abs=5e-9)
    assert (t.df, t.p) == (2, pytest.approx(0.04778, abs=5e-6))
    assert z.significant
    assert not t.significant
    assert found.test("welch", shifted=True) is None  # a bare mean has no spread to allow for


def test_1716_against_the_seeds_of_1493():
    record = RECORDS["1716"]
    found = compare(of(*record.bpb), of(*RECORDS["1493"].bpb), ratio(record))
    shifted, plain = found.test("welch", shifted=True), found.test("welch", shifted=False)
    assert (round(shifted.statistic, 3), round(shifted.df, 2), round(shifted.p, 4)) == (-1.762, 3.65, 0.0798)
    assert plain.p == pytest.approx(9.0e-5, abs=5e-7)


@pytest.mark.parametrize("unit", ["bpb", "loss"])
def test_1019_against_549_by_welch(unit):
    """Published in nats; in bits per byte it is the same test, for the ratio is a constant of the text."""
    record, before = RECORDS["1019"], RECORDS["549"]
    per_nat = ratio(record) if unit == "bpb" else 1.0
    found = compare(of(*getattr(record, unit)), of(*getattr(before, unit)), per_nat)
    plain, shifted = found.test("welch", shifted=False), found.test("welch", shifted=True)
    assert (round(plain.statistic, 3), round(plain.df, 3)) == (-11.834, 3.306)
    assert 2 * plain.p == pytest.approx(0.00081, abs=5e-6)  # published two-sided
    assert (round(shifted.statistic, 3), round(shifted.p, 5)) == (-4.289, 0.00955)


def test_lora_ttt_by_one_sample_t():
    found = compare(of(1.1927, 1.1935, 1.1921, 1.1929), of(1.195), None)
    t = found.test("t", shifted=False)
    assert (round(t.statistic, 2), t.df, round(t.p, 8)) == (-7.62, 3, 0.00234486)
    assert found.threshold is found.margin is found.test("t", shifted=True) is None


def test_162_against_the_record_before():
    record = RECORDS["162"]
    found = compare(of(*record.bpb), of(1.1748), ratio(record))
    assert found.sample.mean == pytest.approx(1.1458169, abs=5e-8)
    assert found.sample.sd == pytest.approx(0.00083251, abs=5e-9)
    t = found.test("t", shifted=True)
    assert (round(t.statistic, 1), round(t.p, 5)) == (-54.1, 0.00017)


# Printed tables of Student's distribution, one-sided: degrees of freedom, p, critical value.
@pytest.mark.parametrize(
    ("df", "p", "critical"),
    [
        (1, 0.05, 6.314),
        (1, 0.01, 31.821),
        (2, 0.05, 2.920),
        (2, 0.01, 6.965),
        (2, 0.0005, 31.599),
        (3, 0.01, 4.541),
        (4, 0.10, 1.533),
        (5, 0.025, 2.571),
        (10, 0.05, 1.812),
        (30, 0.01, 2.457),
        (120, 0.05, 1.658),
        (120, 0.0005, 3.373),
    ],
)
def test_printed_table(df, p, critical):
    assert student_cdf(-critical - 0.0005, df) <= p <= student_cdf(-critical + 0.0005, df)


@given(st.floats(-100, 100))
def test_closed_forms(t):
    assert student_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-14)
    assert student_cdf(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-14)


@given(st.floats(-8, 0), st.floats(1, 300))
def test_integral_of_the_density(t, df):
    points = np.linspace(t, 0, 4001)
    log_front = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    density = np.exp(log_front - (df + 1) / 2 * np.log1p(points**2 / df))
    simpson = (
        (points[1] - points[0]) / 3 * (density[0] + density[-1] + 4 * density[1::2].sum() + 2 * density[2:-1:2].sum())
    )
    assert student_cdf(t, df) == pytest.approx(0.5 - simpson, abs=1e-11)
    assert student_cdf(-t, df) == pytest.approx(1 - student_cdf(t, df), abs=1e-14)


@given(st.floats(-30, 8))
def test_normal(z):
    assert normal_cdf(z) == pytest.approx(NormalDist().cdf(z), rel=1e-9, abs=1e-15)
    assert student_cdf(z, 1e7) == pytest.approx(normal_cdf(z), abs=1e-6)


scores = st.lists(st.floats(0.5, 2), min_size=2, max_size=6, unique=True)


@given(scores, scores, st.floats(0.1, 1))
def test_properties_of_the_comparison(ours, theirs, per_nat):
    found = compare(of(*ours), of(*theirs), per_nat)
    for outcome in found.tests:
        assert 0 <= outcome.p <= 1
        assert (outcome.statistic < 0) == (outcome.p < 0.5) or outcome.statistic == 0
        plain = found.test(outcome.name, shifted=False)
        assert outcome.p >= plain.p  # asking for more is never easier
    welch = found.test("welch", shifted=False)
    assert min(len(ours), len(theirs)) - 1 - 1e-9 <= welch.df <= len(ours) + len(theirs) - 2 + 1e-9
    back = compare(of(*theirs), of(*ours), per_nat).test("welch", shifted=False)
    assert back.statistic == pytest.approx(-welch.statistic)
    assert back.p == pytest.approx(1 - welch.p, abs=1e-12)


@pytest.mark.parametrize("values", [(1.1,), (1.1, 1.1, 1.1)])
def test_without_spread_nothing_is_claimed(values):
    found = compare(of(*values), of(1.2, 1.3), 0.4)
    assert found.tests == ()
    assert found.margin == pytest.approx(1.25 - 0.002 - 1.1)
