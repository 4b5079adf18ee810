"""Scores of a model that adapts by itself in another process: asked for a stretch, then shown it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from verify.reveal.stretches import OwnStatement, Part, Stretch
from verify.sandbox.remote_model import Remote
from verify.scoring.ranks import Ranks
from verify.scoring.scorer import Scored
from verify.scoring.token_stream import Stream
from verify.scoring.windows import Window, batches

ALONE, ELSEWHERE = Ranks(), Ranks(count=1, rank=1)  # who scores: this process, another one


class Turn(NamedTuple):
    """One stretch when it is its turn.  stream: of the part it lies in, which begins at position part.start."""

    part: Part
    stretch: Stretch
    stream: Stream

    def batches(self, windows: Sequence[Window], batch: int) -> Iterator[list[Window]]:
        """Windows of the stretch that are asked for together; inside documents alone, or their number would tell."""
        return batches(windows, 1 if self.stretch.reach else batch)

    def rows(self, group: Sequence[Window], tokens: np.ndarray) -> np.ndarray:
        """What is sent for such windows, int64 (B, T), of a text, integers (n + 1,).

        Where a document ends in a row, the row goes on with what it began with: not with text that is still to come.
        """
        start, last = self.part.start, len(tokens) - 1
        rows = np.stack([tokens[start + window.start : start + window.stop] for window in group]).astype(np.int64)
        lacking = min(start + group[-1].first_scored + self.stretch.reach, last) - (start + group[-1].stop)
        return np.concatenate([rows, np.resize(rows, (len(rows), max(lacking, 0)))], 1)


class Asked:
    """A model that is asked for these rows when it is asked for the windows that they begin with.  first: as told."""

    def __init__(self, model: Remote, rows: np.ndarray, first: list[int]) -> None:
        self._model, self._rows = model.asked(rows=first), torch.from_numpy(rows)

    def hidden(self, ids: Tensor) -> Tensor:
        """See `Remote`: the positions of the windows."""
        return self._model.hidden(self._rows)[:, : ids.shape[1]]

    def head(self, positions: Tensor) -> Tensor:
        """See `Remote`."""
        return self._model.head(positions)[:, : positions.shape[1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnScorer:
    """A run as the script states it: logits for a stretch, scores fixed, then the stretch is revealed, each once.

    The tokens, their order and the nats stay here.  What is behind the last stretch is not revealed: nothing is scored
    after it.  length, stride: of the windows.  evidence: give log_probs as well.
    """

    model: Remote
    vocab_size: int
    length: int
    stride: int
    evidence: bool = False
    name: str = "own"

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int | Ranks = 1) -> Iterator[Scored]:
        """See `Scorer`.  A run begins as the artifact is: the process loads it again for each but its first.

        Raises: as `Remote`; UsageError for a bad stride, batch or ranks; InputError for logits of a wrong shape.
        """
        ranks = Ranks.of(ranks)
        last: Turn | None = None
        for turn in self.turns(tokens, self.model.begin(len(tokens) - 1)):
            if last:
                self.reveal(last)
            for _, some in ranks.parts(turn.stretch.windows):
                for group in turn.batches(some, batch):
                    yield self.ask(turn, group, tokens)
            last = turn

    def turns(self, tokens: np.ndarray, statement: OwnStatement) -> Iterator[Turn]:
        """The stretches of a text, integers (n + 1,), in their order."""
        for part in statement.parts(tokens):
            stream = Stream(tokens[part.start : part.stop + 1])
            for stretch in statement.stretches(stream.targets, self.length, self.stride):
                yield Turn(part, stretch, stream)

    def ask(self, turn: Turn, group: list[Window], tokens: np.ndarray) -> Scored:
        """Score neighbouring windows of one shape, which come next in the stretch, and commit them."""
        model, size = self.asked(turn, group, turn.rows(group, tokens)), len(group)
        (scored,) = turn.stream.scores(model, group, batch=size, ranks=ALONE, keep_log_probs=self.evidence)
        return replace(scored, positions=scored.positions + turn.part.start)

    def asked(self, turn: Turn, group: list[Window], rows: np.ndarray) -> Asked:
        """The model, to be asked for windows of a stretch by such rows."""
        return Asked(self.model, rows, [turn.part.start + window.start for window in group])

    def pass_over(self, turn: Turn) -> None:
        """Take a stretch for scored, by another process: what it is asked meanwhile does not count."""
        for _ in turn.stream.scores(self.model, turn.stretch.windows, batch=1, ranks=ELSEWHERE):
            pass

    def reveal(self, turn: Turn) -> None:
        """Show a stretch whose scores are fixed.  Raises: UsageError when they are not."""
        start, stop = turn.stretch.start, turn.stretch.stop
        self.model.tell("reveal", turn.stream.revealed(start, stop + 1), first=turn.part.start + start)
