"""Scores by our own adaptive scorers once more, in another process that was trained on the same text.

A script can tell a copy of its model that learns, and a request for shifts, from the sliding score: honest there, it
may read ahead here.  So batches are asked for again when it is their turn, with another text behind a cut in all of
their rows; up to there the scores are to stay.  As in own.py, cuts come in the order of the text, a batch without any
change after the cuts inside it, and a request has one cut.  It costs the training up to the last cut, and the requests.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from torch import Tensor

from codec.progress import Progress, silent
from verify.foresight.probe import LEAST_CUTS, SHARE, Foresight, Start, choose, compared, moved_in
from verify.foresight.rows import Answer, Row, ScoredRun, cut_together, nats, whole
from verify.sandbox.remote_scorers import RemoteLearner, RemoteShifts, scorer_of
from verify.scoring.adaptation import Adaptation, ScorerName
from verify.scoring.ranks import Ranks
from verify.scoring.ttt import ScoreFirst, by_chunk
from verify.scoring.windows import Window, batches

ELSEWHERE = Ranks(count=1, rank=1)  # another process scores, this one is trained all the same


class Interrupted(RemoteLearner):
    """A learner; before is called whenever it is about to be trained."""

    def __init__(self, *args: Any, before: Callable[[], None], made: Callable[[Any], None], **how: Any) -> None:
        super().__init__(*args, **how)
        self._before = before
        made(self.model)

    def train(self, ids: Tensor, **how: Any) -> None:
        """See `Learner.train`."""
        self._before()
        super().train(ids, **how)


@dataclass(slots=True)
class _Asking:
    """What is to be asked, chunk by chunk, and what came back.  model: as it is to be asked."""

    run: ScoredRun
    chunks: Sequence[Sequence[Window]]
    cuts: dict[Window, list[Row]]
    rng: np.random.Generator
    progress: Progress
    answers: list[Answer]
    repeats: list[Answer]
    model: Any = None
    chunk: int = 0
    sent: int = 0
    largest: float = -1.0  # so that the first batch is repeated

    def ask_chunk(self) -> None:
        """Ask for the batches of the next chunk that have cuts."""
        for group in batches(self.chunks[self.chunk], self.run.batch):
            if rows := self.cuts.pop(_span(group), None):
                here = [self._ask(group, row, other=True) for row in rows]
                size = max((worst.size for worst, _ in moved_in(here)), default=0.0)
                if size > self.largest or not self.cuts:
                    self.repeats.append(self._ask(group, whole(_span(group)), other=False))
                    self.largest = max(self.largest, size)
                self.answers += here
                self.progress(_span(group).stop, "")
        self.chunk += 1

    def _ask(self, group: Sequence[Window], row: Row, *, other: bool) -> Answer:
        (_, stop, first), tokens = row.window, self.run.tokens
        ids = np.stack([tokens[window.start : window.stop] for window in group]).astype(np.int64)
        self.sent += ids.size
        if other:
            ids = cut_together(ids, [window.start for window in group], row.cut, tokens, self.rng)
        targets = tokens[first + 1 : stop + 1].reshape(len(group), -1)
        after = nats(self.model, ids, targets).reshape(-1)
        return Answer(row, self.run.nats[first : row.cut + 1], after[: row.cut + 1 - first])


def probe_adapted(
    start: Start,
    kind: ScorerName,
    run: ScoredRun,
    adaptation: Adaptation,
    rng: np.random.Generator,
    *,
    length: int,
    stride: int,
    share: float = SHARE,
    exact: bool = True,
    progress: Progress = silent,
) -> Foresight:
    """Train a fresh process again as `ttt` did, or let it fit shifts as for `slot`, and ask for batches of the run.

    run: by that scorer, with the windows of `plan`.  share: of the requests that scored; at least LEAST_CUTS are made.
    progress: gets how many targets were passed.

    Raises: what `start`, `scorer_of` and the script raise.
    """
    with start() as model:
        targets = len(run.nats)
        how: dict[str, Any] = {"vocab_size": 0, "targets": targets, "length": length, "stride": stride}
        scorer = scorer_of(kind, model, adaptation, **how)
        chunks = by_chunk(run.windows, targets, scorer.chunk) if isinstance(scorer, ScoreFirst) else [run.windows]
        spans = [_span(group) for chunk in chunks for group in batches(chunk, run.batch)]
        drawn, least, threshold = choose(
            replace(run, windows=spans, batch=1), max(LEAST_CUTS, ceil(share * len(spans))), rng
        )
        cuts = defaultdict[Window, list[Row]](list)
        for row in sorted([*drawn, *least], key=lambda row: row.cut):
            cuts[row.window].append(row)
        asking = _Asking(run, chunks, cuts, rng, progress, [], [])
        if isinstance(scorer, ScoreFirst):

            def made(learning: Any) -> None:
                asking.model = learning

            def learner(*args: Any, **settings: Any) -> Interrupted:
                return Interrupted(*args, before=asking.ask_chunk, made=made, **settings)

            for _ in replace(scorer, learner=learner).run(run.tokens, batch=run.batch, ranks=ELSEWHERE):
                pass
        else:
            asking.model = RemoteShifts(model, steps=adaptation.slot_steps, lr=adaptation.slot_lr).model
        asking.ask_chunk()
    found = Foresight(
        score=kind,
        cuts=len(drawn),
        least=len(least),
        threshold=threshold,
        share=asking.sent / sum(window.stop - window.start for window in run.windows),
        exact=exact,
        repeated=len(asking.repeats),
    )
    return compared(found, asking.answers, asking.repeats)


def _span(group: Sequence[Window]) -> Window:
    """From the first row's start to the last position that is scored."""
    return Window(group[0].start, group[-1].stop, group[0].first_scored)
