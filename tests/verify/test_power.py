"""The formula against plain simulation of what it is about."""

import numpy as np
import pytest

from verify.foresight.power import ALPHA, Power, by_one, by_sign, lean_test, least_share, sign_test

RUNS = 20_000


@pytest.mark.parametrize("pattern", ["scattered", "one stretch", "every tenth"])
@pytest.mark.parametrize("share", [0.1, 0.02])
def test_cuts_from_equal_parts_see_at_least_what_is_stated(pattern, share):
    """Whatever the pattern of the leak: one cut from each of 40 parts of 4,000 positions."""
    rng, targets, cuts = np.random.default_rng(1), 4_000, 40
    leaks = np.zeros(targets, bool)
    count = round(share * targets)
    places = {
        "scattered": rng.permutation(targets)[:count],
        "one stretch": np.arange(50, 50 + count),
        "every tenth": np.arange(0, targets, 10)[:count],
    }
    leaks[places[pattern]] = True
    drawn = ((np.arange(cuts) + rng.random((RUNS, cuts))) * targets / cuts).astype(int)
    seen = leaks[drawn].any(1).mean()
    assert seen >= by_one(cuts, share) - 0.01  # three deviations of 20,000 runs
    if pattern == "scattered":
        assert seen == pytest.approx(by_one(cuts, share), abs=0.02)


def test_the_least_share_is_seen_with_its_probability():
    for cuts in (1, 36, 4_000):
        assert by_one(cuts, least_share(cuts)) == pytest.approx(0.99)
    assert least_share(0) == 1.0
    stated = Power(460).to_dict()
    assert stated["nats"] * stated["share"] == pytest.approx(stated["worth_nats_per_token"])
    assert stated["seen"]["1"] == 1.0


@pytest.mark.parametrize(("share", "nats"), [(1.0, 5e-4), (0.5, 1e-3), (1.0, 0.0)])
def test_the_sign_test_sees_as_often_as_stated(share, nats):
    rng, cuts, deviation = np.random.default_rng(2), 300, 1e-3
    leaks = rng.random((RUNS, cuts)) < share
    rises = (rng.normal(0, deviation, (RUNS, cuts)) + leaks * nats > 0).sum(1)
    chances = {int(count): sign_test(int(count), cuts - int(count)) for count in np.unique(rises)}
    seen = np.mean([chances[int(count)] < ALPHA for count in rises])
    assert seen == pytest.approx(by_sign(cuts, share, nats, deviation), abs=0.03)
    assert nats or seen <= 3e-4  # honest: once in 10,000


def test_the_sign_test_is_exact():
    assert sign_test(0, 0) == 1.0
    assert sign_test(2, 2) == pytest.approx(11 / 16)
    assert sign_test(0, 5) == 1.0
    assert 0 < sign_test(20_000, 16_000) < 1e-90


@pytest.mark.parametrize("noise", ["normal", "rare and large", "without a mean"])
def test_noise_does_not_lean(noise):
    rng, shape = np.random.default_rng(3), (2_000, 1_000)
    found = {
        "normal": rng.normal(0, 1e-3, shape),
        "rare and large": rng.normal(0, 1, shape) * np.where(rng.random(shape) < 0.01, 1e-2, 1e-5),
        "without a mean": rng.standard_cauchy(shape),
    }[noise]
    assert np.mean([lean_test(each.sum() / np.sqrt((each**2).sum())) < ALPHA for each in found]) <= 5e-4


def test_what_balances_its_signs_leans():
    """A tenth of the scores is lowered by much and a tenth raised by next to nothing: as many rise as fall."""
    found = np.random.default_rng(3).normal(0, 1e-3, 4_000)
    found[:400], found[400:800] = 5e-3, -1e-6
    assert sign_test(int((found > 0).sum()), int((found < 0).sum())) > 0.01
    assert lean_test(found.sum() / np.sqrt((found**2).sum())) < ALPHA


def test_what_noise_hides_is_not_claimed():
    quiet, loud = Power(200), Power(200, noise=0.05, deviation=0.02)
    assert quiet.seen(1.0) == 1.0
    assert loud.seen(1.0) < 0.01
    assert loud.seen(0.0005) == pytest.approx(quiet.seen(0.0005))  # a whole nat is above any of this noise
    assert loud.to_dict()["share"] is None
