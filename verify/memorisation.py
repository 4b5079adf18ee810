"""Does a model know the very text it is scored on?  Its losses there beside those on other text of the kind.

Two signs.  The gap: bits per byte of the fresh text minus those of the scored one, with an interval over documents.
And long runs of targets that are all but certain: stored text is replayed in stretches, what is merely easy is not.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from codec.errors import InputError
from verify.scoring.scorer import Scored, Scorer
from verify.scoring.token_bytes import BOS

SURE = 0.1  # nats: a target given more than 90 %
FEWEST = 8  # documents of a text, counted by size, or runs, below which their spread is not known
CONFIDENCE = 0.999  # one-sided: one honest model in 1,000 lies above
CHANCE = 1e-4  # of a run beyond half of what is allowed, were lengths geometric; twice that, because text repeats
LEAST_RUN = 48  # targets; shorter runs are names, tables and boilerplate, whatever the statistics
SHOWN = 20  # runs and documents in the evidence


class Watched:
    """The same scorer; behind its run `nats` are float32 (targets,), 0.25 GB for the challenge's 62 million."""

    def __init__(self, scorer: Scorer, targets: int) -> None:
        self._scorer = scorer
        self.name, self.vocab_size = scorer.name, scorer.vocab_size
        self.nats = np.full(targets, np.nan, np.float32)

    def run(self, tokens: np.ndarray, **how: Any) -> Iterator[Scored]:
        """See `Scorer`."""
        for scored in self._scorer.run(tokens, **how):
            self.nats[scored.positions] = scored.nats
            yield scored


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredText:
    """nats: float32 (n,), of each target.  tokens: integers (n + 1,).  token_bytes: int64 (n,), of each target."""

    nats: np.ndarray
    tokens: np.ndarray
    token_bytes: np.ndarray

    @property
    def bpb(self) -> float:
        """Bits per byte of the whole text."""
        return float(self.nats.sum(dtype=np.float64)) / math.log(2) / int(self.token_bytes.sum())

    @property
    def starts(self) -> np.ndarray:
        """Position of the first target of each document, int64 (documents,): the one behind its BOS."""
        return np.unique(np.append(0, np.flatnonzero(np.asarray(self.tokens[:-1]) == BOS)))

    def by_document(self) -> tuple[np.ndarray, np.ndarray]:
        """(bits, bytes), float64 (documents,) each."""
        sums = [np.add.reduceat(each.astype(np.float64), self.starts) for each in (self.nats, self.token_bytes)]
        return sums[0] / math.log(2), sums[1]

    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """(first position, length) of every longest stretch of targets below SURE."""
        sure = np.concatenate([[False], self.nats < SURE, [False]])
        edges = np.flatnonzero(sure[1:] != sure[:-1])
        return edges[::2], edges[1::2] - edges[::2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """fresh, scored: bits per byte.  error: standard error of their difference.  factor: quantile for CONFIDENCE.

    documents: of the fresh text and of the scored one.
    """

    fresh: float
    scored: float
    error: float
    factor: float
    documents: tuple[int, int]

    @property
    def size(self) -> float:
        """Bits per byte by which the scored text comes easier."""
        return self.fresh - self.scored

    @property
    def reach(self) -> float:
        """Half the interval: a gain beyond it would have been seen."""
        return self.factor * self.error

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "size": self.size, "reach": self.reach, "confidence": CONFIDENCE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memorised:
    """What speaks for knowledge of the scored text.

    gap: None without fresh text, or with too few documents to tell.  longest, allowed: targets of the longest run,
    and how long one may be; where that is from.  runs: those beyond, first target, length, document and its share of
    that document's targets; the longest first.
    """

    gap: Gap | None
    longest: int
    allowed: int
    compared: bool
    runs: tuple[dict[str, Any], ...]
    beyond: int


def look(scored: ScoredText, fresh: ScoredText | None = None) -> Memorised:
    """Hold the losses of the scored text against its own statistics, and against a fresh text if there is one."""
    first, lengths = scored.runs()
    if fresh is None:
        allowed = _allowed(lengths)
    else:
        others = fresh.runs()[1]
        # The longest of more runs is longer, as their logarithm.
        growth = max(1.0, math.log(max(len(lengths), 2)) / math.log(max(len(others), 2)))
        allowed = max(LEAST_RUN, math.ceil(2 * growth * others.max(initial=0)))
    beyond = np.flatnonzero(lengths > allowed)
    order = beyond[np.argsort(-lengths[beyond], kind="stable")][:SHOWN]
    starts = scored.starts
    ends = np.append(starts[1:], len(scored.nats))
    within = np.searchsorted(starts, first, "right") - 1
    return Memorised(
        gap=None if fresh is None else gap_between(scored, fresh),
        longest=int(lengths.max(initial=0)),
        allowed=allowed,
        compared=fresh is not None,
        beyond=len(beyond),
        runs=tuple(
            {
                "position": int(first[run]),
                "targets": int(lengths[run]),
                "document": int(within[run]),
                "share_of_document": min(1.0, float(lengths[run] / (ends - starts)[within[run]])),
            }
            for run in order
        ),
    )


def gap_between(scored: ScoredText, fresh: ScoredText) -> Gap | None:
    """The gap; None with fewer than FEWEST documents in either text.

    Bits per byte are a ratio of two sums over documents, which are independent as tokens are not.  The error is the
    jackknife's, and degrees of freedom count documents by their size: a few large ones may be most of a text.
    """
    parts = [text.by_document() for text in (fresh, scored)]
    counts = [float(sizes.sum() ** 2 / (sizes**2).sum()) for _, sizes in parts]
    if min(counts) < FEWEST:
        return None
    ratios = [float(bits.sum() / sizes.sum()) for bits, sizes in parts]
    variances = []
    for (bits, sizes), ratio in zip(parts, ratios, strict=True):
        without = (bits - ratio * sizes) / (sizes.sum() - sizes)  # what leaving it out takes from the ratio
        variances.append(float((len(bits) - 1) / len(bits) * ((without - without.mean()) ** 2).sum()))
    total = sum(variances)
    # Welch's degrees of freedom, and Student's quantile to second order in their inverse.
    freedom = total**2 / sum(each**2 / (count - 1) for each, count in zip(variances, counts, strict=True))
    z = NormalDist().inv_cdf(CONFIDENCE)
    factor = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return Gap(
        fresh=ratios[0],
        scored=ratios[1],
        error=math.sqrt(total),
        factor=factor,
        documents=(len(parts[0][0]), len(parts[1][0])),
    )


def refuse_shared(scored: np.ndarray, fresh: np.ndarray) -> None:
    """Raises: InputError when a document of the fresh tokens is one of the scored: it would be known as well."""
    ours, others = (set(_documents(tokens)) for tokens in (scored, fresh))
    if shared := len(ours & others):
        raise InputError(
            f"the fresh text has {shared} of {len(others)} documents in common with the scored one",
            hint="pass --fresh other documents of the same kind",
        )


def _documents(tokens: np.ndarray) -> list[bytes]:
    """sha256 of the ids of each; a cut one at the end is another document."""
    ids = np.asarray(tokens).astype("<u4")
    parts = np.split(ids, np.flatnonzero(ids == BOS))
    return [hashlib.sha256(part.tobytes()).digest() for part in parts if part.size > 1]


def _allowed(lengths: np.ndarray) -> int:
    """How long a run may be among these: twice what a geometric tail behind the shorter nine tenths gives by CHANCE.

    The tail is known by its lower quartile: stored stretches among the longest runs must not make room for themselves.
    """
    if lengths.size < FEWEST:
        return LEAST_RUN
    from_here = float(np.quantile(lengths, 0.9))
    tail = lengths[lengths > from_here] - from_here
    mean = float(np.quantile(tail, 0.25)) / math.log(4 / 3) if tail.size else 1.0
    return max(LEAST_RUN, math.ceil(2 * (from_here + mean * math.log(len(lengths) / 10 / CHANCE))))
