"""The run of a script that adapts by itself once more, in another process to which the same text is revealed.

Batches are asked for as turns.py says, with another text behind a cut in all of their rows; up to there the scores are
to stay.  The other text is a piece of what the request shows before its cut, so a script cannot repeat from memory what
it read ahead.  As it is asked less often than the process that scored, a state that comes from requests shows as well.

It costs what the script's learning costs up to the last cut, and the requests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from codec.errors import InputError
from codec.progress import Progress, silent
from verify.foresight.probe import SHARE, Foresight, Start
from verify.foresight.rows import Answer, Row, cut_together, nats, size_of
from verify.foresight.turns import Turns
from verify.reveal.stretches import OwnStatement
from verify.sandbox.own_scorer import OwnScorer, Turn
from verify.scoring.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRun:
    """A run by a script's own adaptation.

    tokens: integers (n + 1,).  nats: float32 (n,), the scores.  statement: how it was made.  length, stride: of the
    windows, in tokens.  batch: how many at a time.
    """

    tokens: np.ndarray
    nats: np.ndarray
    statement: OwnStatement
    length: int
    stride: int
    batch: int


class Batch(NamedTuple):
    """Windows of a stretch that are asked for together, when it is its turn."""

    turn: Turn
    group: list[Window]

    @property
    def starts(self) -> list[int]:
        """Where in the text each row begins."""
        return [self.turn.part.start + window.start for window in self.group]

    @property
    def span(self) -> Window:
        """From the first row's start to the last position that is scored, in the text."""
        (start, _, first), stop, at = self.group[0], self.group[-1].stop, self.turn.part.start
        return Window(at + start, at + stop, at + first)

    @property
    def sent(self) -> int:
        """Tokens."""
        return size_of(self.group)


def probe_own(
    start: Start,
    run: OwnRun,
    rng: np.random.Generator,
    *,
    share: float = SHARE,
    exact: bool = True,
    progress: Progress = silent,
) -> Foresight:
    """Reveal the text again to a fresh process, and ask it for batches with another text behind a cut.

    share: of the requests that scored, see `Turns`.  progress: gets how many targets were passed.

    Raises: what `start` and the script raise; InputError when it states something else now.
    """
    with start() as model:
        if not model.adapts or model.begin(len(run.tokens) - 1) != run.statement:
            raise InputError("adapts by itself otherwise in each process", where=model.where)
        scorer = OwnScorer(model=model, vocab_size=0, length=run.length, stride=run.stride)
        spans, scored = _spans(scorer, run)
        turns = Turns(run.tokens, run.nats, spans, share, rng)
        for batch, passed in _revealing(scorer, run, turns):
            turns.take(batch.span, batch.sent, partial(_ask, scorer, run, batch, rng))
            progress(passed, "")
    return turns.found("own", scored, exact=exact)


def _batches(run: OwnRun, turn: Turn) -> Iterator[Batch]:
    return (Batch(turn, group) for group in turn.batches(turn.stretch.windows, run.batch))


def _spans(scorer: OwnScorer, run: OwnRun) -> tuple[list[Window], int]:
    """The spans of all batches in the order of the text, and how many tokens were sent."""
    spans, sent = list[Window](), 0
    for turn in scorer.turns(run.tokens, run.statement):
        for batch in _batches(run, turn):
            spans.append(batch.span)
            sent += batch.sent
    return sorted(spans, key=lambda span: span.first_scored), sent


def _revealing(scorer: OwnScorer, run: OwnRun, turns: Turns) -> Iterator[tuple[Batch, int]]:
    """The batches that are wanted, each when all stretches before its own are revealed, and how many targets that are.

    Behind the last of them nothing is revealed.
    """
    last, passed = None, 0
    for turn in scorer.turns(run.tokens, run.statement):
        if not turns.left:
            return
        if last:
            scorer.reveal(last)
        for batch in _batches(run, turn):
            if turns.wants(batch.span):
                yield batch, passed
        scorer.pass_over(turn)
        last, passed = turn, passed + turn.stretch.stop - turn.stretch.start


def _ask(scorer: OwnScorer, run: OwnRun, batch: Batch, rng: np.random.Generator, row: Row, other: bool) -> Answer:
    turn, group = batch
    (_, stop, first), cut, tokens = row.window, row.cut, run.tokens
    ids = turn.rows(group, tokens)
    if other:
        ids = cut_together(ids, batch.starts, cut, tokens, rng)
    targets = tokens[first + 1 : stop + 1].reshape(len(group), -1)
    length = group[0].stop - group[0].start
    after = nats(scorer.asked(turn, group, ids), ids[:, :length], targets).reshape(-1)
    return Answer(row, run.nats[first : cut + 1], after[: cut + 1 - first])
