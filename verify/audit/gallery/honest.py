"""Scorers that keep the rules; the audit must leave every one of them alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from verify.audit.gallery.exhibits import exhibit, exhibit_maker
from verify.audit.gallery.toy import (
    CHUNK,
    LENGTH,
    STRIDE,
    Counts,
    Model,
    Steps,
    groups,
    log_softmax,
    positions_of,
    rows_of,
    scores_of,
    slide,
)
from verify.scoring.scorer import Scored
from verify.scoring.token_bytes import BOS
from verify.scoring.windows import plan

MIXED = 0.3  # weight of counts in a mixture
KERNELS = 5e-7  # nats by which float32 sums in another order move a log-probability


@exhibit("sliding")
def sliding(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """Fixed weights, every target once, all but the first with most of a window as context."""
    model = Model()
    for windows in groups(tokens, batch, ranks):
        yield slide(model, tokens, windows, model.digest())


@exhibit_maker("noisy kernels")
def noisy(folder: Path) -> Steps:
    """Fixed weights on kernels that add up in any order: no two answers are equal, and none is off by a millionth."""
    rng = np.random.default_rng()

    def steps(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
        model = Model()
        for windows in groups(tokens, batch, ranks):
            positions = np.concatenate([positions_of(window) for window in windows])
            rows = np.concatenate([rows_of(model, tokens, window) for window in windows])
            rows = log_softmax(rows + rng.uniform(-KERNELS, KERNELS, rows.shape))
            yield scores_of(tokens, positions, rows, model.digest())

    return steps


@exhibit("score-first training")
def score_first(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """Test-time training: all windows of a chunk are scored, then its targets are trained on."""
    model, targets = Model(), len(tokens) - 1
    windows = plan(targets, LENGTH, STRIDE)
    for start in range(0, targets, CHUNK):
        chunk = [window for window in windows if start <= window.first_scored < start + CHUNK]
        for first in range(0, len(chunk), batch):
            yield slide(model, tokens, chunk[first : first + batch], model.digest())
        for _ in range(2):
            model.learn(tokens[start : start + CHUNK + 1])


@exhibit("SLOT per window, context only")
def row_slot(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """Each window has a shift of its own, fitted to those of its tokens that come before what it scores."""
    model = Model()
    for windows in groups(tokens, batch, ranks):
        rows = []
        for window in windows:
            hidden = model.hidden(tokens[window.start : window.first_scored])
            known = tokens[window.start + 1 : window.first_scored + 1]
            rows.append(rows_of(model, tokens, window, model.fit_shift([(hidden, known)])))
        positions = np.concatenate([positions_of(window) for window in windows])
        yield scores_of(tokens, positions, np.concatenate(rows), model.digest())


@exhibit("training inside documents")
def document_reset(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """Test-time training inside each document: a few targets are scored, then trained on; the next starts afresh."""
    targets, model, start = len(tokens) - 1, Model(), 0
    for first in range(targets):
        if tokens[first] == BOS:
            model, start = Model(), first
        elif first - start == STRIDE:
            model.learn(tokens[start : first + 1])
            start = first
        hidden = model.hidden(tokens[max(start, first - LENGTH + 1) : first + 1])[-1:]
        yield scores_of(tokens, np.array([first]), model.log_probs(hidden), model.digest())


@exhibit("normalized n-gram mixture")
def mixture(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """The model mixed with counts of what followed the last two tokens so far, both over the whole vocabulary."""
    model, counts = Model(), Counts()
    for windows in groups(tokens, batch, ranks):
        for window in windows:
            rows = rows_of(model, tokens, window)
            for position, row in zip(positions_of(window), rows, strict=True):
                after = counts.after(tokens, position)
                weight = MIXED if after.any() else 0.0
                mixed = (1 - weight) * np.exp(row) + weight * after / max(after.sum(), 1)
                digest = model.digest(*([counts.table] if position else []))
                yield scores_of(tokens, np.array([position]), np.log(mixed)[None], digest)
                counts.see(tokens[max(position - 1, 0) : position + 2])
