"""Windows to be asked again, each with its own cut, and the requests that ask for them."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from verify.foresight.other_text import other_text
from verify.scoring.token_stream import predict
from verify.scoring.windows import Window, batches

Shape = tuple[int, int, int]  # rows of a request, tokens of each, positions before the first that is scored


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRun:
    """A run of fixed weights over a text.

    tokens: integers (n + 1,).  nats: float32 (n,), the scores; log-probabilities are no finer.  windows: those that
    were scored, in order.  batch: how many at a time.
    """

    tokens: np.ndarray
    nats: np.ndarray
    windows: Sequence[Window]
    batch: int


class Row(NamedTuple):
    """A scored window.  cut: the last of its positions that is asked for: the tokens behind it are other ones.

    drawn: the cut was drawn in proportion to targets.
    """

    window: Window
    cut: int
    drawn: bool = False


class Answer(NamedTuple):
    """before, after: float32 (k,), nats of a row's scored positions up to its cut, as scored and as answered now.

    blind: what is behind the cut was in no row of this request or one before it.
    """

    row: Row
    before: np.ndarray
    after: np.ndarray
    blind: bool = True


class Questions:
    """Makes requests out of rows: of the shapes that were scored, with rows from anywhere in the text side by side.

    shown: bool (n + 1,), the tokens that were sent in front of a cut so far.
    """

    def __init__(self, run: ScoredRun, rng: np.random.Generator) -> None:
        self._run, self._rng = run, rng
        self._scored = list(batches(run.windows, run.batch))
        self._starts = [request[0].first_scored for request in self._scored]
        self.shown = np.zeros(len(run.tokens), bool)

    def requests(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        """The rows, those scored in requests of one shape together in requests of that shape; some twice to fill them.

        A process must not be shown what is behind a cut before it is asked: it could remember it.  So cuts ascend, from
        as many places of the text as a request has rows; where those begin is left to chance.  Only what the first rows
        from one place show of the end of the place before is known there (`blind`).
        """
        groups: dict[Shape, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row.cut):
            groups.setdefault(_shape(self._scored[self._number(row)]), []).append(row)
        for (size, *_), group in groups.items():
            twice = self._rng.integers(0, len(group), -len(group) % size)
            group = sorted([*group, *(group[at]._replace(drawn=False) for at in twice)], key=lambda row: row.cut)
            count = len(group) // size
            turn = int(self._rng.integers(count)) if size > 1 else 0  # of one place the beginning is the text's
            group = group[turn:] + group[:turn]
            yield from (group[first::count] for first in range(count))

    def unchanged(self, rows: Iterable[Row], most: int) -> list[list[Row]]:
        """The requests, as they were scored, of these rows: each once, `most` at most."""
        numbers = list(dict.fromkeys(self._number(row) for row in rows))[:most]
        return [list(map(whole, self._scored[number])) for number in numbers]

    def _number(self, row: Row) -> int:
        return bisect_right(self._starts, row.window.first_scored) - 1

    def ask(self, model: Any, rows: Sequence[Row]) -> list[Answer]:
        """One request to a model with `.logits`, see `predict`; the rows have one shape."""
        ids = np.stack([self._ids(row) for row in rows])
        positions = np.stack([np.arange(row.window.first_scored, row.window.stop) for row in rows])
        after = nats(model, ids, self._run.tokens[positions + 1])
        for row in rows:
            self.shown[row.window.start : row.cut + 1] = True
        return [
            Answer(row, self._run.nats[first : row.cut + 1], one[: row.cut + 1 - first], not self.shown[row.cut + 1])
            for row, one, (first, *_) in zip(rows, after, positions, strict=True)
        ]

    def _ids(self, row: Row) -> np.ndarray:
        (start, stop, _), cut, tokens = row.window, row.cut, self._run.tokens
        ids = tokens[start:stop].astype(np.int64)
        known = cut + 1 - start
        if cut + 1 < stop:
            ids[known:] = other_text(ids[:known], int(tokens[cut + 1]), stop - cut - 1, self._rng)
        return ids


def cut_together(
    ids: np.ndarray, starts: Sequence[int], cut: int, tokens: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Overlapping rows ids int64 (B, T), which begin at these positions, with the same other text behind one cut."""
    behind = np.array(starts)[:, None] + np.arange(ids.shape[1]) - cut - 1  # 0 at the first token behind the cut
    if behind.max() < 0:
        return ids
    text = other_text(tokens[starts[0] : cut + 1], int(tokens[cut + 1]), int(behind.max()) + 1, rng)
    return np.where(behind >= 0, text[behind.clip(0)], ids)


def size_of(windows: Iterable[Window]) -> int:
    """Tokens, those of overlaps as often as they are sent."""
    return sum(window.stop - window.start for window in windows)


def whole(window: Window) -> Row:
    """The row that asks for all of a window as it is."""
    return Row(window, window.stop - 1)


def _shape(request: Sequence[Window]) -> Shape:
    """Kernels may round otherwise in requests of another one."""
    start, stop, first_scored = request[0]
    return len(request), stop - start, first_scored - start


@torch.no_grad()
def nats(model: Any, ids: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float32 (B, k): scores of the last k positions of ids int64 (B, T); targets: integers (B, k).

    A target beyond the ids that the model gives logits to has none: its score is infinite.
    """
    log_probs = predict(model, torch.from_numpy(ids), ids.shape[1] - targets.shape[1]).float().log_softmax(-1)
    wanted = torch.from_numpy(targets.astype(np.int64))[..., None]
    known = log_probs.shape[2] - 1
    scores = -log_probs.gather(2, wanted.clamp(max=known))
    found: np.ndarray = torch.where(wanted > known, torch.inf, scores)[..., 0].cpu().numpy()
    return found
