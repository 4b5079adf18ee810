"""Targets scored from their prefixes alone: what follows is not sent at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.errors import InputError
from codec.progress import Progress, silent
from verify.audit.causality_rules import FLOAT
from verify.audit.trace import Difference, largest_difference
from verify.foresight.probe import Start, rows_at, spread
from verify.foresight.rows import Questions, Row, ScoredRun, nats

TWO_SIDED = 1.959964  # deviations of a 95 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Strict:
    """targets: how many were scored from prefixes alone; 0: as many were asked for in whole windows with another text
    behind them, because the script refused shorter ones.  refusal: its words, or "".

    mean: nats per target by which the prefix alone scores worse than the run did; low, high: its 95 % interval.
    rounded: how many targets differed alone and not in a window of the scored shape, as other kernels round.
    worst: the largest difference that is none of kernels; changed there says how many there are.
    """

    targets: int
    refusal: str
    mean: float
    low: float
    high: float
    rounded: int = 0
    worst: Difference | None = None


def score_alone(
    start: Start,
    run: ScoredRun,
    rng: np.random.Generator,
    *,
    count: int,
    noise: float = 0.0,
    progress: Progress = silent,
) -> Strict:
    """Score `count` targets, one drawn from each of equal parts of the text, and compare with the run's scores.

    Each window is cut off at the target's position: one request for each, of one row.  Where that differs by more than
    rounding, the same target is asked for in a window of the scored shape whose rest is another text: what agrees there
    was a matter of shapes.  noise: nats up to which scores are the same, of noisy kernels.

    Raises: what `start` raises, and the model for whole windows.
    """
    count = min(count, len(run.nats))
    places = spread(count, len(run.nats), rng)
    rows, before = rows_at(places, run.windows), run.nats[places].astype(np.float64)
    tolerance, refusal, filled = max(FLOAT, noise), "", np.empty(0)
    try:
        with start() as model:
            after = np.empty(count)
            for number, row in enumerate(rows):
                after[number] = _alone(model, run, row)
                progress(number + 1, "")
        differ = np.flatnonzero(~(np.abs(after - before) <= tolerance))
        if len(differ):
            with start() as model:  # another one: the first was shown by now what stands behind the targets
                filled = _filled(model, run, [rows[at] for at in differ], rng)
    except InputError as error:
        refusal = error.message
        with start() as model:
            filled = _filled(model, run, rows, rng)
        differ, after = np.arange(count), filled.copy()
    worst = largest_difference("score", places[differ], before[differ], filled, tolerance) if len(differ) else None
    gap = after - before
    half = TWO_SIDED * float(gap.std(ddof=1)) / np.sqrt(count) if count > 1 else np.inf
    return Strict(
        targets=0 if refusal else count,
        refusal=refusal,
        mean=float(gap.mean()),
        low=float(gap.mean() - half),
        high=float(gap.mean() + half),
        rounded=0 if refusal else len(differ) - (worst.changed if worst else 0),
        worst=worst,
    )


def _alone(model: Any, run: ScoredRun, row: Row) -> float:
    ids = run.tokens[row.window.start : row.cut + 1].astype(np.int64)
    return float(nats(model, ids[None], run.tokens[None, row.cut + 1 : row.cut + 2])[0, 0])


def _filled(model: Any, run: ScoredRun, rows: Sequence[Row], rng: np.random.Generator) -> np.ndarray:
    """float64 (k,): the scores at the cuts, with another text behind them."""
    questions = Questions(run, rng)
    found: dict[Row, float] = {}
    for request in questions.requests(rows):
        found |= {answer.row: float(answer.after[-1]) for answer in questions.ask(model, request)}
    return np.array([found[row] for row in rows], np.float64)
