"""Scored windows once more, in another process, with another text behind a cut: up to it, scores are to stay.

A script that notices what is going on gains nothing by it.  Its scores are fixed: what the prefix does not give it can
say again only if it knows the text that it is not shown.  So neither order nor number of the requests has to be hidden,
but no request may show what stands behind the cut of a later one: what is asked unchanged comes last.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codec.progress import Progress, silent
from verify.audit.causality_rules import FLOAT
from verify.audit.trace import Difference, largest_difference
from verify.foresight.power import Power
from verify.foresight.rows import Answer, Questions, Row, ScoredRun, size_of, whole
from verify.scoring.adaptation import ScorerName
from verify.scoring.windows import Window

Start = Callable[[], AbstractContextManager[Any]]  # a fresh process with the model, which offers `.logits`
SHARE = 0.05  # of the tokens that scoring read
LEAST_CUTS = 32  # of a short run: 99 % for a leak in every seventh position
BY_LOSS = 4  # one cut in so many goes to the windows of least loss
REPEATED = 8  # requests that are asked again unchanged once something moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How much is spent on it.  share: of the tokens that scoring read; 0: nothing.  strict: targets alone."""

    share: float = SHARE
    strict: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """What became of scored windows with another text behind a cut.

    score: by fixed weights, or by adaptation, then "window" and "row" below mean a batch: see own.py and adapted.py.
    fresh: of the fresh text.
    cuts: how many were drawn in proportion to targets, with something behind them that was not shown before; risen,
    fallen: of the scores at all drawn ones; lean: sum of their differences by the root of the sum of squares.  least:
    how many windows of least loss were cut besides; threshold: nats per token, every window below it was among them.
    share: tokens sent, of those that scoring read.  exact: the same request must get the same answer, as on a CPU.

    rows: how many came back, company included; moved: those whose scores changed.  worst: the largest change, of what
    was repeated if no row moved, or None; cut: the last position before the other text; window: start and stop of the
    tokens around it.  repeated: requests asked again without any change; noise,
    deviation: the largest and the root mean square difference of their scores, in nats.
    """

    score: ScorerName = "sliding"
    fresh: bool = False
    cuts: int = 0
    risen: int = 0
    fallen: int = 0
    lean: float = 0.0
    least: int = 0
    threshold: float = 0.0
    share: float = 0.0
    exact: bool = True
    rows: int = 0
    moved: int = 0
    worst: Difference | None = None
    cut: int = -1
    window: tuple[int, int] = (0, 0)
    repeated: int = 0
    noise: float = 0.0
    deviation: float = 0.0

    @property
    def by_rows(self) -> bool:
        """Whether every row has a cut of its own; else one is that of a whole request, whose rows differ together."""
        return self.score == "sliding"

    @property
    def power(self) -> Power:
        """What it would have seen.

        Noise in what a script learned is shared by all scores after it, so no sign test is made of an own score.
        """
        noisy = self.noise > FLOAT
        independent = noisy and self.score == "sliding"
        return Power(self.cuts, self.noise if noisy else 0.0, self.deviation if independent else 0.0)


def probe(
    start: Start,
    run: ScoredRun,
    rng: np.random.Generator,
    *,
    share: float = SHARE,
    exact: bool = True,
    progress: Progress = silent,
) -> Foresight:
    """Ask a fresh process for scored windows again, each cut at a place of its own and among others than before.

    share: of the tokens that scoring read; at least LEAST_CUTS rows are asked for.  Behind them the requests of the
    rows that moved, and the first one of the run, are repeated as they were, so that noise of kernels is known where it
    would matter.

    Raises: what `start` and the model raise.
    """
    questions = Questions(run, rng)
    drawn, least, threshold = choose(run, row_count(run, share), rng)
    first = whole(run.windows[0])
    with start() as model:
        answers, repeats = list[Answer](), list[Answer]()
        for rows in questions.requests([*drawn, *least]):
            answers += questions.ask(model, rows)
            progress(min(len(answers), len(drawn) + len(least)), "")  # company comes on top
        suspects = questions.unchanged([*(row for _, row in moved_in(answers)[:REPEATED]), first], REPEATED + 1)
        for rows in suspects:
            repeats += questions.ask(model, rows)
    found = Foresight(
        cuts=sum(each.blind for each in answers if each.row.drawn),
        least=len(least),
        threshold=threshold,
        share=size_of(each.row.window for each in (*answers, *repeats)) / size_of(run.windows),
        exact=exact,
        repeated=len(suspects),
    )
    return compared(found, answers, repeats)


def compared(found: Foresight, answers: Sequence[Answer], repeats: Sequence[Answer]) -> Foresight:
    """The same, with what the answers show.  repeats: of requests without any change."""
    off = np.concatenate([each.after - each.before for each in repeats]).astype(np.float64)
    off[np.isnan(off)] = np.inf
    last, moved = _at_cuts(answers), moved_in(answers)
    found = replace(
        found,
        risen=int((last > 0).sum()),
        fallen=int((last < 0).sum()),
        lean=_lean(last),
        rows=len(answers),
        moved=len(moved),
        noise=float(np.abs(off).max()),
        deviation=float(np.sqrt(np.square(off).mean())),
    )
    for worst, row in (moved or moved_in(repeats))[:1]:
        found = replace(found, worst=worst, cut=row.cut, window=(row.window.start, row.window.stop))
    return found


def choose(run: ScoredRun, rows: int, rng: np.random.Generator) -> tuple[list[Row], list[Row], float]:
    """Rows drawn in proportion to targets, rows of least loss, and the loss below which all windows are among those.

    The first are one cut from each of equal parts of the text, at a position of which all are equally likely.
    """
    windows, targets = run.windows, len(run.nats)
    starts = np.array([window.first_scored for window in windows])
    by_loss = rows // BY_LOSS if len(windows) > rows else 0
    places = spread(rows - by_loss, targets, rng)
    losses = np.add.reduceat(run.nats, starts, dtype=np.float64) / np.diff(np.append(starts, targets))
    lowest = np.argsort(losses, kind="stable")[:by_loss]
    least = [Row(windows[number], _inside(windows[number], rng)) for number in lowest]
    return rows_at(places, windows), least, float(losses[lowest].max(initial=0.0))


def row_count(run: ScoredRun, share: float) -> int:
    """How many rows are asked for: whole requests."""
    size = min(run.batch, len(run.windows))
    return max(LEAST_CUTS, size * int(np.ceil(share * len(run.windows) / size)))


def spread(count: int, targets: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (count,): a position from each of equal parts of the text, all positions equally likely."""
    return np.minimum((np.arange(count) + rng.random(count)) * targets / count, targets - 1).astype(np.int64)


def rows_at(places: np.ndarray, windows: Sequence[Window]) -> list[Row]:
    """For each position the window that scores it, cut there."""
    starts = [window.first_scored for window in windows]
    numbers = np.searchsorted(starts, places, side="right") - 1
    return [Row(windows[number], int(place), drawn=True) for number, place in zip(numbers, places, strict=True)]


def _inside(window: Window, rng: np.random.Generator) -> int:
    """A cut behind which there is something, if a window scores more than one position."""
    return int(rng.integers(window.first_scored, max(window.stop - 1, window.first_scored + 1)))


def moved_in(answers: Sequence[Answer]) -> list[tuple[Difference, Row]]:
    """The largest difference in each row that has one, the largest of all first."""
    found = []
    for row, before, after, _ in answers:
        positions = np.arange(row.window.first_scored, row.cut + 1)
        worst = largest_difference("score", positions, before.astype(np.float64), after.astype(np.float64), FLOAT)
        found += [(worst, row)] if worst else []
    return sorted(found, key=lambda each: -each[0].size)


def _at_cuts(answers: Sequence[Answer]) -> np.ndarray:
    """float32: how much the score at the cut rose, of the rows that were drawn.

    Those of least loss are left out: chosen for low scores, they rise by noise alone.
    """
    return np.array([each.after[-1] - each.before[-1] for each in answers if each.row.drawn], np.float32)


def _lean(differences: np.ndarray) -> float:
    size = float(np.sqrt(np.square(differences, dtype=np.float64).sum()))
    return float(differences.sum(dtype=np.float64)) / size if 0 < size < np.inf else 0.0
