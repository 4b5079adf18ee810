"""With which probability a leak would have been seen: one formula for still scores, one for noisy ones.

A *leak* of G nats per token in total lives in a share f of the positions: there a score is lower by g = G / f than the
prefix allows.  K cuts are drawn in proportion to targets, one from each K-th part of the text.  Behind a cut stands
another text, so a score that leaks is not repeated.

**Still scores.**  A cut at a leaking position shows it: g is far above rounding.  Let f_i be the share of leaking
positions in part i; they average f.  All cuts miss with probability prod(1 - f_i) <= (1 - f)^K, since the geometric
mean is at most the arithmetic one.  So

    seen >= 1 - (1 - f)^K                                  (`by_one`)

whatever pattern the leak has: whole batches, single positions, the beginning of the text.  The least f that is seen
with probability p is 1 - (1 - p)^(1/K) (`least_share`), about 4.6 / K for p = 0.99.

**Noisy scores.**  Differences without any change have deviation s and reach at most m.  One difference alone counts
above MARGIN m, so a leak shows by itself if g >= (MARGIN + 1) m.  Smaller ones are found together, by their sign: noise
raises as many scores as it lowers, what replaces a leak raises them.  Of K differences a share

    q = (1 - f) / 2 + f Phi(g / s)

rises.  The test fails a script when risen minus fallen exceeds z sqrt(K), z = Phi^-1(1 - ALPHA), so it sees the leak
with probability Phi((sqrt(K) (2 q - 1) - z) / (2 sqrt(q (1 - q))))   (`by_sign`), by the normal approximation.

A script can balance the signs: it raises as many scores by next to nothing as it lowers by much.  So their sum must not
lean either: noise is as likely as its opposite, and then the sum S and V^2 = sum of squares obey P(S >= x V) <=
exp(-x^2 / 2)   (`lean_test`).  Source: Efron, Student's t-test under symmetry conditions, 1969.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

WORTH = 0.0005  # nats per token: a tenth of the 0.005 by which a record must win
PROBABILITY = 0.99
ALPHA = 5e-5  # of each of two tests: an honest script on noisy kernels is accused once in 10,000 runs
MARGIN = 4  # times the largest noise that was measured is still noise: it was measured on few requests
SHARES = (1.0, 0.1, 0.02)  # for the table in the evidence
NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Power:
    """What K cuts see.  noise, deviation: nats, the largest and the root mean square difference without any change."""

    cuts: int
    noise: float = 0.0
    deviation: float = 0.0

    def seen(self, share: float, worth: float = WORTH) -> float:
        """With which probability at least a leak of `worth` nats per token in total, in this share of positions."""
        nats = worth / share
        alone = by_one(self.cuts, share) if nats >= (MARGIN + 1) * self.noise else 0.0
        return max(alone, by_sign(self.cuts, share, nats, self.deviation) if self.deviation else alone)

    def to_dict(self, worth: float = WORTH) -> dict[str, Any]:
        """For JSON: the least share that is seen with 99 %, nats per position there, and what is seen of some shares.

        The first two are of still scores; None with noise.
        """
        least = least_share(self.cuts)
        return {
            "cuts": self.cuts,
            "worth_nats_per_token": worth,
            "probability": PROBABILITY,
            "share": None if self.noise else least,
            "nats": None if self.noise else worth / least,
            "seen": {f"{share:g}": self.seen(share, worth) for share in SHARES},
        }


def by_one(cuts: int, share: float) -> float:
    """The probability that one of the cuts hits the leaking share of the positions.

    >>> round(by_one(228, 0.02), 2)
    0.99
    """
    return 1.0 - (1.0 - share) ** cuts


def least_share(cuts: int, probability: float = PROBABILITY) -> float:
    """The least share of positions that one of the cuts hits with this probability; 1 without cuts.

    >>> round(least_share(460), 3)
    0.01
    """
    return 1.0 - (1.0 - probability) ** (1 / cuts) if cuts else 1.0


def by_sign(cuts: int, share: float, nats: float, deviation: float) -> float:
    """The probability that the sign test sees a leak of so many nats in this share, under noise of this deviation."""
    rises = (1 - share) / 2 + share * NORMAL.cdf(nats / deviation)
    spread = 2 * math.sqrt(rises * (1 - rises))
    beyond = math.sqrt(cuts) * (2 * rises - 1) - NORMAL.inv_cdf(1 - ALPHA)
    return NORMAL.cdf(beyond / spread) if spread else float(beyond > 0)


def sign_test(risen: int, fallen: int) -> float:
    """The probability that noise alone lets at least so many of the differences rise: exact, one-sided.

    >>> round(sign_test(3, 0), 9)
    0.125
    """
    count = risen + fallen
    logarithms = (
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(risen, count + 1)
    )
    return min(1.0, math.fsum(math.exp(each - count * math.log(2)) for each in logarithms))


def lean_test(lean: float) -> float:
    """The probability, at most, that noise alone lets differences lean so far: their sum by the root of their squares'.

    >>> round(lean_test(4.5), 6)
    4e-05
    """
    return math.exp(-(max(lean, 0.0) ** 2) / 2)
