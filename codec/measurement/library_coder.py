"""What the entropy coders of the library constriction need for a tensor's levels, to hold ours against.

Both know for free which levels occur and how many there are: they are bounds of what such coders can do, no files.
"""

from typing import NamedTuple

import numpy as np

BLOCK = 1024  # levels between two looks at the histogram of the adaptive coder
MEMORY = 31 / 32  # of the histogram at each of these: it knows the last 32,768 levels, about
SEEN_BEFORE = 0.5  # of each level, to begin with and for good


class LibraryBytes(NamedTuple):
    """static: ANS under the tensor's own histogram, which costs nothing.

    adaptive: a range coder under the histogram of the levels before, which forgets.
    """

    static: int
    adaptive: int


def library_bytes(levels: np.ndarray) -> LibraryBytes:
    """levels: integers of any shape, row by row; whole words of 4 bytes."""
    values, symbols = np.unique(levels, return_inverse=True)
    symbols = symbols.ravel().astype(np.int32)
    if len(values) < 2:
        return LibraryBytes(0, 0)
    return LibraryBytes(_static(symbols, len(values)), _adaptive(symbols, len(values)))


def _static(symbols: np.ndarray, count: int) -> int:
    from constriction import stream

    coder = stream.stack.AnsCoder()
    coder.encode_reverse(
        symbols, stream.model.Categorical(_chances(np.bincount(symbols, minlength=count)), perfect=False)
    )
    return 4 * len(coder.get_compressed())


def _adaptive(symbols: np.ndarray, count: int) -> int:
    from constriction import stream

    coder, counts = stream.queue.RangeEncoder(), np.zeros(count)
    for start in range(0, len(symbols), BLOCK):
        block = symbols[start : start + BLOCK]
        coder.encode(block, stream.model.Categorical(_chances(counts + SEEN_BEFORE), perfect=False))
        counts = MEMORY * counts + np.bincount(block, minlength=count)
    return 4 * len(coder.get_compressed())


def _chances(counts: np.ndarray) -> np.ndarray:
    chances: np.ndarray = counts / counts.sum()
    return chances
