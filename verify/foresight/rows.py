"""Windows to be asked again, each with its own cut, and the requests that ask for them."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from verify.foresight.other_text import OtherText
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
    """before, after: float32 (k,), nats of a row's scored positions up to its cut, as scored and as answered now."""

    row: Row
    before: np.ndarray
    after: np.ndarray


class Questions:
    """Makes requests out of rows: of the shapes that were scored, with rows from anywhere in the text side by side."""

    def __init__(self, run: ScoredRun, other: OtherText, rng: np.random.Generator) -> None:
        self._run, self._other, self._rng = run, other, rng
        self._scored = list(batches(run.windows, run.batch))
        self._starts = [request[0].first_scored for request in self._scored]
        self._alike: dict[Shape, list[Window]] = {}
        for request in self._scored:
            self._alike.setdefault(_shape(request), []).extend(request)

    def requests(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        """The rows in random order, those scored in requests of one shape together in requests of that shape.

        What is left over gets the company of unchanged windows.
        """
        groups: dict[Shape, list[Row]] = {}
        for row in rows:
            groups.setdefault(_shape(self._scored[self._number(row)]), []).append(row)
        for kind, group in groups.items():
            size, alike = kind[0], self._alike[kind]
            group += [whole(alike[at]) for at in self._rng.integers(0, len(alike), -len(group) % size)]
            order = self._rng.permutation(len(group))
            yield from ([group[at] for at in order[first : first + size]] for first in range(0, len(group), size))

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
        known = [row.cut + 1 - row.window.first_scored for row in rows]
        return [
            Answer(row, self._run.nats[row.window.first_scored : row.cut + 1], one[:count])
            for row, one, count in zip(rows, after, known, strict=True)
        ]

    def _ids(self, row: Row) -> np.ndarray:
        (start, stop, _), cut, tokens = row.window, row.cut, self._run.tokens
        ids = tokens[start:stop].astype(np.int64)
        if cut + 1 < stop:
            before, last, truth = (int(token) for token in tokens[[max(cut - 1, 0), cut, cut + 1]])
            ids[cut + 1 - start :] = self._other.after(before, last, truth, stop - cut - 1)
        return ids


def whole(window: Window) -> Row:
    """The row that asks for all of a window as it is."""
    return Row(window, window.stop - 1)


def _shape(request: Sequence[Window]) -> Shape:
    """Kernels may round otherwise in requests of another one."""
    start, stop, first_scored = request[0]
    return len(request), stop - start, first_scored - start


@torch.no_grad()
def nats(model: Any, ids: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float32 (B, k): scores of the last k positions of ids int64 (B, T); targets: integers (B, k)."""
    log_probs = predict(model, torch.from_numpy(ids), ids.shape[1] - targets.shape[1]).float().log_softmax(-1)
    wanted = torch.from_numpy(targets.astype(np.int64))[..., None]
    scores: np.ndarray = -log_probs.gather(2, wanted)[..., 0].cpu().numpy()
    return scores
