"""Scorers that break a rule each, in the ways in which submissions have done it; none of this is allowed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from verify.audit.gallery.exhibits import add_exhibit, exhibit, exhibit_maker
from verify.audit.gallery.honest import score_first, sliding
from verify.audit.gallery.toy import (
    CHARACTERS,
    CHUNK,
    FIRST_CHARACTER,
    HELD_OUT,
    LENGTH,
    STRIDE,
    VOCAB,
    Counts,
    Model,
    Steps,
    groups,
    log_softmax,
    positions_of,
    rows_of,
    scores_of,
    slide,
    stream,
    target_bytes,
)
from verify.scoring.scorer import Scored
from verify.scoring.token_bytes import BOS
from verify.scoring.windows import Window, plan

HINT = 2.0  # nats by which a hint is raised


@exhibit("look-ahead statistics", "audit.prefix")
def look_ahead(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """The vocabulary is weighted by how often each id occurs in the whole text, the unseen part included."""
    model = Model()
    often = np.log(1 + np.bincount(tokens, minlength=VOCAB))
    for windows in groups(tokens, batch, ranks):
        positions = np.concatenate([positions_of(window) for window in windows])
        rows = np.concatenate([rows_of(model, tokens, window) for window in windows])
        yield scores_of(tokens, positions, log_softmax(rows + often), model.digest())


@exhibit("train, then score", "audit.prefix", "audit.state")
def train_first(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """The weights are trained on the text before it is scored."""
    model = Model()
    for start in range(0, len(tokens) - 1, CHUNK):
        model.learn(tokens[start : start + CHUNK + 1])
    for windows in groups(tokens, batch, ranks):
        yield slide(model, tokens, windows, model.digest())


@exhibit("two passes", "audit.prefix")
def two_pass(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """A clean score-first pass fills a cache of counts; what is reported is a second pass that reads it."""
    counts, model = Counts(), Model()
    for scored in score_first(tokens, batch, ranks):
        for position in scored.positions:
            counts.see(tokens[max(position - 1, 0) : position + 2])
    for windows in groups(tokens, batch, ranks):
        for window in windows:
            rows, positions = rows_of(model, tokens, window), positions_of(window)
            cached = np.stack([counts.after(tokens, position) for position in positions])
            yield scores_of(tokens, positions, log_softmax(rows + np.log(1 + cached)), model.digest())


@exhibit("best of the epochs", "audit.prefix", "audit.kraft")
def best_epoch(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """Every chunk is scored before and after an epoch of training on it; each target keeps its lower score."""
    model, targets = Model(), len(tokens) - 1
    windows = plan(targets, LENGTH, STRIDE)
    for start in range(0, targets, CHUNK):
        chunk = [window for window in windows if start <= window.first_scored < start + CHUNK]
        before = slide(model, tokens, chunk, model.digest())
        model.learn(tokens[start : start + CHUNK + 1])
        after = slide(model, tokens, chunk, "")
        nats = np.minimum(before.nats, after.nats)
        yield Scored(positions=before.positions, nats=nats, digest=before.digest)


@exhibit("hint gated by the target", "audit.self_target", "audit.kraft")
def gated_hint(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """What followed the last two tokens before is raised, and the rest lowered, but only where it will be right."""
    model, counts = Model(), Counts()
    for windows in groups(tokens, batch, ranks):
        for window in windows:
            positions, rows = positions_of(window), rows_of(model, tokens, window)
            for row, position in zip(rows, positions, strict=True):
                after = counts.after(tokens, position)
                if after[tokens[position + 1]] > 0:  # the gate: a hint that is wrong is not given
                    row[after.argmax()] += HINT
                counts.see(tokens[max(position - 1, 0) : position + 2])
            yield scores_of(tokens, positions, log_softmax(rows), model.digest())


@exhibit("n-gram cache for the target only", "audit.kraft")
def gold_only(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """A hashed n-gram cache is mixed in for the target alone; nobody asks what the other ids would have got."""
    model, buckets = Model(), 64
    contexts, pairs = np.zeros(buckets), np.zeros(buckets)
    for windows in groups(tokens, batch, ranks):
        for window in windows:
            scored = slide(model, tokens, [window], model.digest())
            nats = scored.nats.copy()
            for number, position in enumerate(scored.positions):
                context = (31 * tokens[max(position - 1, 0)] + tokens[position]) % buckets
                pair = (context + 17 * tokens[position + 1]) % buckets
                p = (pairs[pair] + 2 * np.exp(-nats[number])) / (contexts[context] + 2)
                nats[number] = -np.log(min(p, 1.0))
                contexts[context] += 1
                pairs[pair] += 1
            yield Scored(positions=scored.positions, nats=nats, digest=scored.digest)


@exhibit("SLOT of pull request 1176", "audit.prefix", "audit.self_target")
def slot_after_training(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """Pull request 1176: score-first training, then all windows again with the trained weights and a SLOT shift.

    One shift for a batch, fitted to all its targets, those about to be scored included.
    """
    model, targets = Model(), len(tokens) - 1
    for start in range(0, targets, CHUNK):
        model.learn(tokens[start : start + CHUNK + 1])
    for windows in groups(tokens, batch, ranks):
        yield _shared_slot(model, tokens, windows, [window.stop for window in windows])


@exhibit("SLOT shared in a batch", "audit.prefix", "audit.self_target")
def batch_slot(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """SLOT called causal: the shift is fitted to contexts only, but to those of all windows of a batch together.

    Later windows' contexts hold what earlier windows are about to score.
    """
    model = Model()
    for windows in groups(tokens, batch, ranks):
        yield _shared_slot(model, tokens, windows, [window.first_scored for window in windows])


def _shared_slot(model: Model, tokens: np.ndarray, windows: list[Window], stops: list[int]) -> Scored:
    pieces = list(zip(windows, stops, strict=True))
    contexts = [(model.hidden(tokens[w.start : stop]), tokens[w.start + 1 : stop + 1]) for w, stop in pieces]
    shift = model.fit_shift(contexts)
    positions = np.concatenate([positions_of(window) for window in windows])
    rows = np.concatenate([rows_of(model, tokens, window, shift) for window in windows])
    return scores_of(tokens, positions, rows, model.digest())


@exhibit("tail counted again", "audit.coverage")
def tail_again(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """The windows of early records: near the end all of them stop there, and each scores the last targets again."""
    model, targets = Model(), len(tokens) - 1
    for start in range(0, targets, STRIDE):
        stop = min(start + LENGTH, targets)
        window = Window(start, stop, 0 if start == 0 else max(stop - STRIDE, start))
        yield slide(model, tokens, [window], model.digest())


@exhibit("targets left out", "audit.coverage")
def skipping(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """The hard targets, those at the start of a document, are left out of the mean."""
    model = Model()
    for windows in groups(tokens, batch, ranks):
        scored = slide(model, tokens, windows, model.digest())
        kept = tokens[scored.positions] != BOS
        rows = scored.log_probs[kept] if scored.log_probs is not None else np.empty((0, VOCAB))
        yield scores_of(tokens, scored.positions[kept], rows, scored.digest)


def spaces_twice(tokens: np.ndarray) -> np.ndarray:
    """Bytes of each target, by a table that counts the space before a word twice."""
    space = FIRST_CHARACTER + CHARACTERS.index(" ")
    sizes: np.ndarray = target_bytes(tokens) + (tokens[1:] == space)
    return sizes


add_exhibit("wrong byte table", spaces_twice, lambda folder: sliding, ("audit.bytes",), counted=spaces_twice)


@exhibit_maker("cache between runs", "audit.determinism")
def remembering(folder: Path) -> Steps:
    """Counts of earlier runs are kept in the process: the second run over a text knows it."""
    counts = Counts()

    def steps(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
        model = Model()
        for windows in groups(tokens, batch, ranks):
            for window in windows:
                positions, rows = positions_of(window), rows_of(model, tokens, window)
                cached = np.stack([counts.after(tokens, position) for position in positions])
                yield scores_of(tokens, positions, log_softmax(rows + np.log(1 + cached)), model.digest())
        counts.see(tokens)

    return steps


@exhibit_maker("validation file opened", "audit.side_channel")
def reading(folder: Path) -> Steps:
    """The validation file is opened while it is scored, and its next token raised: no change of the stream shows it."""

    def steps(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
        model = Model()
        answers = np.fromfile(folder / HELD_OUT, np.int64)
        for windows in groups(tokens, batch, ranks):
            for window in windows:
                positions, rows = positions_of(window), rows_of(model, tokens, window)
                known = positions + 1 < len(answers)
                rows[np.flatnonzero(known), answers[positions[known] + 1]] += HINT
                yield scores_of(tokens, positions, log_softmax(rows), model.digest())

    return steps


@exhibit_maker("adapted while loading", "audit.state")
def adapted(folder: Path) -> Steps:
    """The weights were trained on the validation text while loading; the scoring itself is clean."""
    model, text = Model(), stream()
    for start in range(0, len(text) - 1, CHUNK):
        model.learn(text[start : start + CHUNK + 1])

    def steps(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
        for windows in groups(tokens, batch, ranks):
            yield slide(model, tokens, windows, model.digest())

    return steps


@exhibit_maker("model left over", "audit.state", "audit.fresh_process", used=True)
def left_over(folder: Path) -> Steps:
    """One model object serves two evaluations: the first scores first and trains it, the second starts from that."""
    model, evaluated = Model(), [False]

    def steps(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
        for windows in groups(tokens, batch, ranks):
            yield slide(model, tokens, windows, model.digest())
        if not evaluated[0]:
            model.learn(tokens)
            evaluated[0] = True

    return steps


@exhibit("document lengths", "audit.structure")
def document_lengths(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """The start of a document gets the likelier the nearer the next one is, which only the unseen text can tell."""
    model, starts = Model(), np.flatnonzero(tokens == BOS)
    for windows in groups(tokens, batch, ranks):
        for window in windows:
            positions, rows = positions_of(window), rows_of(model, tokens, window)
            following = np.searchsorted(starts, positions, side="right")
            ends = np.append(starts, len(tokens))[following]
            rows[:, BOS] += 4.0 / (ends - positions)
            yield scores_of(tokens, positions, log_softmax(rows), model.digest())


@exhibit("shortest document first", "audit.prefix", "audit.coverage", "audit.structure")
def shortest_first(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """Documents are taken by length, and the weights carry over: the order needs lengths of unseen documents."""
    model = Model()
    starts = np.flatnonzero(tokens == BOS)
    ends = np.append(starts[1:], len(tokens) - 1)
    for number in np.argsort(ends - starts, kind="stable"):
        start, stop = int(starts[number]), int(ends[number])
        for window in plan(stop - start, LENGTH, STRIDE):
            yield slide(model, tokens, [Window(*(start + at for at in window))], model.digest())
        model.learn(tokens[start : stop + 1])


@exhibit("not normalized", "audit.normalization", "audit.kraft")
def flattened(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[Scored]:
    """Probabilities are raised to a power, as when a token's is spread over its bytes, and not normalized again."""
    model = Model()
    for windows in groups(tokens, batch, ranks):
        scored = slide(model, tokens, windows, model.digest())
        if scored.log_probs is not None:
            yield scores_of(tokens, scored.positions, 0.8 * scored.log_probs, scored.digest)
