"""Is a mean over seeds better than another, by how much, and how sure is that?

All tests are one-sided and in bits per byte: a negative statistic means better, p is the chance of a mean that low
or lower if there were no difference.  `shifted` tests ask for the record rule's 0.005 nats per token on top.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from codec.budget import PARAMETER_GOLF
from codec.html import Shown

Name = Literal["z", "t", "welch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedScores:
    """Scores of one recipe, a seed each.  sd: sample deviation (n - 1), None below two seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the values."""
        return math.fsum(self.values) / len(self.values)

    @property
    def sd(self) -> float | None:
        """Divides by n - 1; with three seeds the population formula gives 18 % less."""
        if len(self.values) < 2:
            return None
        mean = self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (len(self.values) - 1))

    @property
    def variance_of_mean(self) -> float:
        """sd squared over n; 0 for a single value, which stands for an exact number."""
        return (self.sd or 0.0) ** 2 / len(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one test says.  df: degrees of freedom, None for z.  p: one-sided."""

    name: Name
    shifted: bool
    statistic: float
    df: float | None
    p: float

    @property
    def significant(self) -> bool:
        """Whether p is below the record rule's bound."""
        return self.p < PARAMETER_GOLF.record_p

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "test": self.name,
            "shifted": self.shifted,
            "statistic": self.statistic,
            "df": self.df,
            "p": self.p,
            "significant": self.significant,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Shown):
    """One sample against another mean.  bpb_per_nat: the runs' own ratio bpb / loss, None when no loss is known.

    tests: empty when the sample has no spread (one seed, or equal values), no shifted ones without a ratio.
    """

    sample: SeedScores
    against: SeedScores
    bpb_per_nat: float | None
    tests: tuple[Outcome, ...]

    @property
    def shift(self) -> float | None:
        """The record rule's nats per token, in bits per byte of this tokenizer."""
        return None if self.bpb_per_nat is None else PARAMETER_GOLF.record_nats * self.bpb_per_nat

    @property
    def threshold(self) -> float | None:
        """What the mean has to stay below for a record, in bits per byte."""
        return None if self.shift is None else self.against.mean - self.shift

    @property
    def margin(self) -> float | None:
        """By how much the mean is below the threshold, in bits per byte; negative when it is not."""
        return None if self.threshold is None else self.threshold - self.sample.mean

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "mean": self.sample.mean,
            "against": self.against.mean,
            "threshold": self.threshold,
            "margin": self.margin,
            "tests": [test.to_dict() for test in self.tests],
        }

    def test(self, name: Name, *, shifted: bool) -> Outcome | None:
        """The one of that name, if it could be made."""
        return next((test for test in self.tests if (test.name, test.shifted) == (name, shifted)), None)


def compare(sample: SeedScores, against: SeedScores, bpb_per_nat: float | None) -> Comparison:
    """All tests that the values allow.  One-sample tests take the other mean as exact; Welch uses its seeds.

    Source: README of openai/parameter-golf, 0.005 nats at p < 0.01; it does not say by which test.
    """
    shifts = [(False, 0.0)]
    if bpb_per_nat is not None:
        shifts.insert(0, (True, PARAMETER_GOLF.record_nats * bpb_per_nat))
    tests = [
        test
        for shifted, shift in shifts
        for name in ("z", "t", "welch")
        if (test := _outcome(name, sample, against, shifted, shift))
    ]
    return Comparison(sample=sample, against=against, bpb_per_nat=bpb_per_nat, tests=tuple(tests))


def normal_cdf(z: float) -> float:
    """P(Z <= z) of the standard normal distribution."""
    return math.erfc(-z / math.sqrt(2)) / 2


def student_cdf(t: float, df: float) -> float:
    """P(T <= t) of Student's distribution; df may be fractional, as Welch's is.

    Source: Abramowitz and Stegun 26.7.1: the tail is I_x(df / 2, 1 / 2) / 2 at x = df / (df + t^2).
    """
    square = t * t
    tail = _incomplete_beta(df / 2, 0.5, df / (df + square), square / (df + square)) / 2
    return tail if t < 0 else 1 - tail


def _outcome(name: Name, sample: SeedScores, against: SeedScores, shifted: bool, shift: float) -> Outcome | None:
    ours = sample.variance_of_mean
    theirs = against.variance_of_mean if name == "welch" else 0.0
    if not ours or (name == "welch" and not theirs):
        return None  # without spread any difference would look certain
    statistic = (sample.mean - (against.mean - shift)) / math.sqrt(ours + theirs)
    if name == "z":
        return Outcome(name=name, shifted=shifted, statistic=statistic, df=None, p=normal_cdf(statistic))
    df = float(len(sample.values) - 1)
    if name == "welch":  # Welch-Satterthwaite
        df = (ours + theirs) ** 2 / (ours**2 / df + theirs**2 / (len(against.values) - 1))
    return Outcome(name=name, shifted=shifted, statistic=statistic, df=df, p=student_cdf(statistic, df))


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularized I_x(a, b), by its continued fraction, from the inside out.  rest: 1 - x, without its rounding.

    scipy has it too, but would be the largest dependency after torch, for this one function.
    Source: Abramowitz and Stegun 26.5.8; it converges fast below (a + 1) / (a + b + 2), beyond it
    I_x(a, b) = 1 - I_{1-x}(b, a).
    """
    if not x or not rest:
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, rest, x)
    fraction = 1.0
    for step in range(100, 0, -1):  # 60 give 12 digits, 100 all 16, at every df from 1 to 10,000
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + term * x / fraction
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(log_front) / (a * fraction)
