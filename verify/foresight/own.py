"""The run of a script that adapts by itself once more, in another process to which the same text is revealed.

A batch is asked for when it is its turn, with another text behind a cut in all of its rows; up to there the scores are
to stay.  A request has one cut: neighbouring rows overlap, so with a cut for each of them one would show what another
one lacks.

Cuts are asked for in the order of the run, the other text is a piece of what the request shows before its cut, and a
batch is asked for without any change only after the cuts inside it.  So what is behind a cut was never sent to this
process before, in whatever place: a script cannot repeat from memory what it read ahead.  As it is asked less often
than the process that scored, a state that comes from requests shows as well.

It costs what the script's learning costs up to the last cut, and the requests.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np

from codec.errors import InputError
from codec.progress import Progress, silent
from verify.foresight.probe import LEAST_CUTS, SHARE, Foresight, Start, choose, compared, moved_in
from verify.foresight.rows import Answer, Row, ScoredRun, cut_together, nats, whole
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
        return sum(window.stop - window.start for window in self.group)


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

    share: of the requests that scored; at least LEAST_CUTS are made.  Repeated as they were: the first and the last of
    the batches that are asked for, and each whose scores moved more than any before it, so that noise of kernels is
    known where it would matter.  progress: gets how many targets were passed.

    Raises: what `start` and the script raise; InputError when it states something else now.
    """
    answers, repeats = list[Answer](), list[Answer]()
    with start() as model:
        if not model.adapts or model.begin(len(run.tokens) - 1) != run.statement:
            raise InputError("adapts by itself otherwise in each process", where=model.where)
        scorer = OwnScorer(model=model, vocab_size=0, length=run.length, stride=run.stride)
        spans, sent = _spans(scorer, run)
        known = ScoredRun(tokens=run.tokens, nats=run.nats, windows=spans, batch=1)
        drawn, least, threshold = choose(known, max(LEAST_CUTS, ceil(share * len(spans))), rng)
        cuts = defaultdict[Window, list[Row]](list)
        for row in sorted([*drawn, *least], key=lambda row: row.cut):
            cuts[row.window].append(row)
        asked, largest = 0, -1.0  # so that the first batch is repeated
        for number, (batch, passed) in enumerate(_revealing(scorer, run, cuts), 1):
            here = [_ask(scorer, run, batch, row, rng) for row in cuts[batch.span]]
            size = max((worst.size for worst, _ in moved_in(here)), default=0.0)
            if size > largest or number == len(cuts):
                repeats.append(_ask(scorer, run, batch, whole(batch.span)))
                asked, largest = asked + batch.sent, max(largest, size)
            answers += here
            asked += batch.sent * len(here)
            progress(passed, "")
    found = Foresight(
        score="own",
        cuts=len(drawn),
        least=len(least),
        threshold=threshold,
        share=asked / sent,
        exact=exact,
        repeated=len(repeats),
    )
    return compared(found, answers, repeats)


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


def _revealing(scorer: OwnScorer, run: OwnRun, wanted: Collection[Window]) -> Iterator[tuple[Batch, int]]:
    """The batches of these spans, each when all stretches before its own are revealed, and how many targets that are.

    Behind the last of them nothing is revealed.
    """
    last, left, passed = None, len(wanted), 0
    for turn in scorer.turns(run.tokens, run.statement):
        if not left:
            return
        if last:
            scorer.reveal(last)
        for batch in _batches(run, turn):
            if batch.span in wanted:
                left -= 1
                yield batch, passed
        scorer.pass_over(turn)
        last, passed = turn, passed + turn.stretch.stop - turn.stretch.start


def _ask(scorer: OwnScorer, run: OwnRun, batch: Batch, row: Row, rng: np.random.Generator | None = None) -> Answer:
    """One request for a batch.  row: its span and a cut, behind which all its rows show other text, if any."""
    turn, group = batch
    (_, stop, first), cut, tokens = row.window, row.cut, run.tokens
    ids = turn.rows(group, tokens)
    if rng:
        ids = cut_together(ids, batch.starts, cut, tokens, rng)
    targets = tokens[first + 1 : stop + 1].reshape(len(group), -1)
    length = group[0].stop - group[0].start
    after = nats(scorer.asked(turn, group, ids), ids[:, :length], targets).reshape(-1)
    return Answer(row, run.nats[first : cut + 1], after[: cut + 1 - first])
