"""What may follow instead: real text from elsewhere in the stream that goes on where a cut is."""

import numpy as np

POOL = 1 << 20  # tokens to choose from: enough for several places of almost every pair


class OtherText:
    """Continuations from elsewhere.

    A place is looked for whose last two tokens are those before the cut, else the last one, else any; so what follows
    is what could follow, a document's start included, and nothing but the text itself tells where the cut is.

    tokens: integers (n + 1,).
    """

    def __init__(self, tokens: np.ndarray, rng: np.random.Generator) -> None:
        start = int(rng.integers(max(len(tokens) - POOL, 0) + 1))
        self._rng, self._pool = rng, tokens[start : start + POOL].astype(np.int64)
        last, before = self._pool[1:-1], self._pool[:-2]  # of places 1 .. n - 2: what follows is in the pool
        self._base = int(self._pool.max(initial=0)) + 1
        self._orders = [(key, np.argsort(key, kind="stable")) for key in (before * self._base + last, last)]
        self._sorted = [key[order] for key, order in self._orders]

    def after(self, before: int, last: int, truth: int, count: int) -> np.ndarray:
        """int64 (count,): goes on behind the tokens before, last, and does not begin with truth, if the text allows.

        What is longer than the text goes on at its beginning.
        """
        for found, (_, order), key in zip(self._sorted, self._orders, (before * self._base + last, last), strict=True):
            first, stop = np.searchsorted(found, key), np.searchsorted(found, key, side="right")
            if stop > first and (place := self._place(order[first:stop], truth)) is not None:
                return self._from(place, count)
        place = self._place(np.arange(len(self._pool) - 2), truth)
        return self._from(0 if place is None else place, count)

    def _place(self, places: np.ndarray, truth: int) -> int | None:
        """One of the places that truth does not follow."""
        fine = places[self._pool[places + 2] != truth]
        return int(self._rng.choice(fine)) if len(fine) else None

    def _from(self, place: int, count: int) -> np.ndarray:
        return np.take(self._pool, np.arange(place + 2, place + 2 + count), mode="wrap")


def other_text(before: np.ndarray, truth: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (count,): goes on behind a row's tokens up to its cut, and does not begin with the true next one.

    before: integers (k,), k >= 1.  It is text from there, again from its beginning when it ends: behind two tokens like
    the last two if there are such, else behind one like the last one, else from anywhere.

    >>> other_text(np.array([1, 5, 6, 7, 1, 5, 6]), 9, 3, np.random.default_rng(0)).tolist()
    [7, 1, 5]
    """
    ids = np.asarray(before).astype(np.int64)
    places = np.flatnonzero(ids != truth)
    if not len(places):
        return np.append(truth - 1 if truth else 1, np.full(count, truth))[:count]
    for known in (2, 1):  # alike is a place that has the last tokens in front of it
        runs = np.lib.stride_tricks.sliding_window_view(ids[:-1], known) if len(ids) > known else ids[:0, None]
        alike = np.intersect1d(places, np.flatnonzero((runs == ids[-known:]).all(1)) + known)
        if len(alike):
            places = alike
            break
    place = int(rng.choice(places))
    return np.take(ids, np.arange(place, place + count), mode="wrap")
