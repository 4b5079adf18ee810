"""What every target of a run cost, kept while it is scored."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from verify.scoring.scorer import Scored, Scorer


class TargetLosses:
    """Give `of(scorer)` the run; `nats` are then float32 (targets,), 0.25 GB for the challenge's 62 million."""

    def __init__(self, targets: int) -> None:
        self.nats = np.full(targets, np.nan, np.float32)

    def of(self, scorer: Scorer) -> Scorer:
        """The same scorer, watched."""
        return _Noted(scorer, self.nats)


class _Noted:
    def __init__(self, scorer: Scorer, nats: np.ndarray) -> None:
        self._scorer, self._nats = scorer, nats
        self.name, self.vocab_size = scorer.name, scorer.vocab_size

    def run(self, tokens: np.ndarray, **how: Any) -> Iterator[Scored]:
        for scored in self._scorer.run(tokens, **how):
            self._nats[scored.positions] = scored.nats
            yield scored
