"""What a run scored, kept while it goes on: one number of each target."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.scoring.scorer import Scored, Scorer
from verify.scoring.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRun:
    """A run of fixed weights over a text.

    tokens: integers (n + 1,).  nats: float32 (n,), the scores.  windows: those that were scored, in order.  batch: how
    many at a time.
    """

    tokens: np.ndarray
    nats: np.ndarray
    windows: Sequence[Window]
    batch: int


class Recording:
    """Give `of(scorer)` the run; `nats` are then its scores, float32 (targets,): log-probabilities are no finer."""

    def __init__(self, targets: int) -> None:
        self.nats = np.full(targets, np.nan, np.float32)

    def of(self, scorer: Scorer) -> Scorer:
        """The same scorer, watched."""
        return _Watched(scorer, self.nats)


class _Watched:
    def __init__(self, scorer: Scorer, nats: np.ndarray) -> None:
        self._scorer, self._nats = scorer, nats
        self.name, self.vocab_size = scorer.name, scorer.vocab_size

    def run(self, tokens: np.ndarray, **how: Any) -> Iterator[Scored]:
        for scored in self._scorer.run(tokens, **how):
            self._nats[scored.positions] = scored.nats
            yield scored
