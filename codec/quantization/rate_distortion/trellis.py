"""Trellis-coded quantization: the cheapest of all sequences of levels that a trellis allows.

Levels are whole numbers, but at every place only the even or only the odd ones may be used: the state of a machine says
which, and the level moves the machine.  Half of the levels so come near to the error of all of them: of the 1.53 dB
between a uniform step and the bound 8 states regain 1.1, 128 states 1.3 (benchmarks/README.md).

Source: trellis-coded quantization (Marcellin and Fischer 1990) in its union-codebook form with entropy coding; the
rate-1/2 systematic feedback codes of Ungerboeck (1982).
"""

import numpy as np

from codec.decoder import Trellis
from codec.errors import UsageError

# Parity checks by number of states, octal as the literature prints them; a state is moved by all but their last bit.
CHECKS = {
    1: (0, 0),
    4: (0o5, 0o2),
    8: (0o13, 0o4),
    16: (0o23, 0o4),
    32: (0o45, 0o10),
    64: (0o103, 0o24),
    128: (0o235, 0o126),
    256: (0o515, 0o362),
}
UNREACHED = np.float32(1e30)


def trellis_of(states: int, restart: int) -> Trellis:
    """states: one of CHECKS; 1 allows even levels only, which is the uniform quantizer of twice the step.

    Raises: UsageError for another number.
    """
    if states not in CHECKS:
        raise UsageError(f"a trellis of {states} states", hint=f"known: {sorted(CHECKS)}")
    first, second = CHECKS[states]
    return Trellis(first >> 1, second >> 1, restart)


def transitions(trellis: Trellis) -> tuple[np.ndarray, np.ndarray]:
    """(previous state, level modulo 4), int64 (2, states) each: the two ways to come to a state."""
    states = np.arange(1 << max(trellis.if_odd, trellis.if_half_odd).bit_length())
    levels = states % 2 + 2 * np.arange(2)[:, None]  # even states have levels 0 and 2 modulo 4, odd ones 1 and 3
    reached = np.stack([trellis.after(states, own) for own in levels]).ravel()
    order = np.argsort(reached, kind="stable").reshape(-1, 2).T
    return order % len(states), levels.ravel()[order]


def best_levels(trellis: Trellis, costs: np.ndarray) -> np.ndarray:
    """Which levels to take, by their remainder modulo 4: uint8 (length, sequences).

    costs: float32 (length, 4, sequences), of the best level of each remainder.  All sequences begin in state 0.
    By dynamic programming (Viterbi), over all sequences at once.
    """
    length, _, sequences = costs.shape
    if not trellis.if_odd:
        return np.where(costs[:, 2] < costs[:, 0], 2, 0).astype(np.uint8)
    previous, remainders = transitions(trellis)
    states = previous.shape[1]
    chosen = np.empty((length, states, sequences), bool)
    total = np.full((states, sequences), UNREACHED)
    total[0] = 0
    ways, branches = np.empty((2, 2, states, sequences), np.float32)
    for place in range(length):
        total.take(previous, axis=0, out=ways, mode="clip")
        costs[place].take(remainders, axis=0, out=branches, mode="clip")  # all places at once leave the cache
        ways += branches
        np.less(ways[1], ways[0], out=chosen[place])
        np.minimum(ways[0], ways[1], out=total)
    taken: np.ndarray = remainders.ravel()[_traced(chosen, previous, total.argmin(0))]
    return taken.astype(np.uint8)


def _traced(chosen: np.ndarray, previous: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The way taken at every place, as an index into the flat table of ways: int64 (length, sequences).

    chosen: bool (length, states, sequences), whether the second way to a state is the cheaper one.
    """
    length, states, sequences = chosen.shape
    flat, back = chosen.reshape(length, -1), previous.ravel()
    taken = np.empty((length, sequences), np.int64)
    lanes, state = np.arange(sequences), last
    for place in range(length - 1, -1, -1):
        np.add(flat[place].take(state * sequences + lanes) * states, state, out=taken[place])
        state = back.take(taken[place])
    return taken
