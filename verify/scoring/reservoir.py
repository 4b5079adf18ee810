"""A few batches of a run, chosen by chance while it goes on, to be looked at again when it is over."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from verify.scoring.scorer import Scored, Scorer

MOST = 32  # batches; 60,000 make a whole evaluation, so this is 0.05 % of it
LEAST, SHARE = 4, 25  # of a shorter run one in 25, but not fewer than 4


class Sample:
    """Give `of(scorer)` the run; `batches` are then those that were kept, every one as likely as any other.

    rng: None takes it from the system, so that whoever is scored cannot know the choice.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        self.rng = rng or np.random.default_rng()
        self._kept: list[Scored] = []
        self._seen = 0

    def of(self, scorer: Scorer) -> Scorer:
        """The same scorer, watched."""
        return Watched(scorer, self._keep)

    @property
    def batches(self) -> list[Scored]:
        """What was kept, in random order."""
        count = max(LEAST, min(MOST, self._seen // SHARE))
        return [self._kept[at] for at in self.rng.permutation(len(self._kept))[:count]]

    def _keep(self, scored: Scored) -> None:
        self._seen += 1
        place = int(self.rng.integers(self._seen))
        if len(self._kept) < MOST:
            self._kept.append(scored)
        elif place < MOST:
            self._kept[place] = scored


class Watched:
    """The same scorer; keep is told each of its batches."""

    def __init__(self, scorer: Scorer, keep: Callable[[Scored], None]) -> None:
        self._scorer, self._keep = scorer, keep
        self.name, self.vocab_size = scorer.name, scorer.vocab_size

    def run(self, tokens: np.ndarray, **how: Any) -> Iterator[Scored]:
        """See `Scorer`."""
        for scored in self._scorer.run(tokens, **how):
            self._keep(scored)
            yield scored
