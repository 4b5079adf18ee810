"""Batches of a run in its own order, as a model learns on the way: each is asked for when it is its turn.

A request has one cut: neighbouring rows overlap, so with a cut for each of them one would show what another one lacks.
Cuts come in the order of the run, and a batch is asked for without any change only after the cuts inside it.  So what
is behind a cut was never sent to the process before, in whatever place.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import ceil

import numpy as np

from verify.foresight.probe import LEAST_CUTS, Foresight, choose, compared, moved_in
from verify.foresight.rows import Answer, Row, ScoredRun, whole
from verify.scoring.adaptation import ScorerName
from verify.scoring.windows import Window

Ask = Callable[[Row, bool], Answer]  # one request for a batch; with other text behind the row's cut, or as it was


class Turns:
    """What is to be asked, and what came back.

    tokens: integers (n + 1,).  nats: float32 (n,), the scores.  spans: of the batches that scored, in the order of the
    text.  share: of their requests; at least LEAST_CUTS are made.

    Repeated as they were: the first and the last of the batches that are asked for, and each whose scores moved more
    than any before it, so that noise of kernels is known where it would matter.
    """

    def __init__(
        self, tokens: np.ndarray, nats: np.ndarray, spans: Sequence[Window], share: float, rng: np.random.Generator
    ) -> None:
        run = ScoredRun(tokens=tokens, nats=nats, windows=spans, batch=1)
        self._drawn, self._least, self._threshold = choose(run, max(LEAST_CUTS, ceil(share * len(spans))), rng)
        self._cuts = defaultdict[Window, list[Row]](list)
        for row in sorted([*self._drawn, *self._least], key=lambda row: row.cut):
            self._cuts[row.window].append(row)
        self._answers, self._repeats = list[Answer](), list[Answer]()
        self._largest = -1.0  # so that the first batch is repeated
        self._sent = 0

    @property
    def left(self) -> int:
        """How many batches are still to be asked for."""
        return len(self._cuts)

    def wants(self, span: Window) -> bool:
        """Whether the batch is to be asked for."""
        return span in self._cuts

    def take(self, span: Window, size: int, ask: Ask) -> None:
        """Ask for a batch that is wanted, once for each of its cuts.  size: tokens of a request."""
        rows = self._cuts.pop(span)
        here = [ask(row, True) for row in rows]
        self._sent += size * len(rows)
        moved = max((worst.size for worst, _ in moved_in(here)), default=0.0)
        if moved > self._largest or not self._cuts:
            self._repeats.append(ask(whole(span), False))
            self._largest = max(self._largest, moved)
            self._sent += size
        self._answers += here

    def found(self, score: ScorerName, scored: int, *, exact: bool) -> Foresight:
        """What became of it.  scored: tokens that scoring read."""
        found = Foresight(
            score=score,
            cuts=len(self._drawn),
            least=len(self._least),
            threshold=self._threshold,
            share=self._sent / scored,
            exact=exact,
            repeated=len(self._repeats),
        )
        return compared(found, self._answers, self._repeats)
