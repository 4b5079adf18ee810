"""What may follow instead: real text that the request shows anyway.

Text from elsewhere in the stream would show a process what stands behind cuts that it is still to be asked about.
"""

import numpy as np


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
