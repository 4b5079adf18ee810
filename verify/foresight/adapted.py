"""Scores by our own adaptive scorers once more, in another process that was trained on the same text.

A script can tell a copy of its model that learns, and a request for shifts, from the sliding score: honest there, it
may read ahead here.  So batches are asked for again as turns.py says, with another text behind a cut in all of their
rows; up to there the scores are to stay.  It costs the training up to the last cut, and the requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from codec.progress import Progress, silent
from verify.foresight.probe import SHARE, Foresight, Start
from verify.foresight.rows import Answer, Row, ScoredRun, cut_together, nats, size_of
from verify.foresight.turns import Turns
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
    """Asks for the batches of one chunk after the other.  model: as it is to be asked."""

    run: ScoredRun
    chunks: Sequence[Sequence[Window]]
    turns: Turns
    rng: np.random.Generator
    progress: Progress
    model: Any = None
    chunk: int = 0

    def ask_chunk(self) -> None:
        """Ask for what is wanted of the next chunk."""
        for group in batches(self.chunks[self.chunk], self.run.batch):
            if self.turns.wants(span := _span(group)):
                self.turns.take(span, size_of(group), partial(self._ask, group))
                self.progress(span.stop, "")
        self.chunk += 1

    def _ask(self, group: Sequence[Window], row: Row, other: bool) -> Answer:
        (_, stop, first), tokens = row.window, self.run.tokens
        ids = np.stack([tokens[window.start : window.stop] for window in group]).astype(np.int64)
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

    run: by that scorer, with the windows of `plan`.  share: of the requests that scored, see `Turns`.  progress: gets
    how many targets were passed.

    Raises: what `start`, `scorer_of` and the script raise.
    """
    with start() as model:
        targets = len(run.nats)
        how: dict[str, Any] = {"vocab_size": 0, "targets": targets, "length": length, "stride": stride}
        scorer = scorer_of(kind, model, adaptation, **how)
        chunks = by_chunk(run.windows, targets, scorer.chunk) if isinstance(scorer, ScoreFirst) else [run.windows]
        spans = [_span(group) for chunk in chunks for group in batches(chunk, run.batch)]
        turns = Turns(run.tokens, run.nats, spans, share, rng)
        asking = _Asking(run, chunks, turns, rng, progress)
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
    return turns.found(kind, size_of(run.windows), exact=exact)


def _span(group: Sequence[Window]) -> Window:
    """From the first row's start to the last position that is scored."""
    return Window(group[0].start, group[-1].stop, group[0].first_scored)
