"""Symbols -> the words that codec.decoder.Stream reads: rANS over interleaved lanes, integers only."""

from collections.abc import Iterable

import numpy as np

from codec.decoder import EIGHTHS, PRECISION, STATE_FLOOR

# Thresholds between stored eighth-octave values, in units of 2**-16 of a count: 2**((k + 0.5) / 8).
_HALF_STEPS = np.array([(EIGHTHS[k & 7] * 68438 >> 16) << (k >> 3) for k in range(8 * 24)])


def table_logs(counts: np.ndarray) -> np.ndarray:
    """counts: int64 (symbols,) of one context -> uint8 (last present + 1,), the table as stored.

    A stored value is off by at most 1/16 octave, which costs 0.0005 bits per symbol.  Integers only.
    """
    present = np.flatnonzero(counts)
    if not len(present):
        return np.ones(1, np.uint8)
    counts = counts[: present[-1] + 1].astype(np.int64)
    # The largest count lands on 2**14, so that relative precision does not depend on how much was counted.
    excess = max(int(counts.max()).bit_length() - 32, 0)  # 2**32 << 30 is the most that int64 holds
    scaled = (counts >> excess << PRECISION + 16) // (counts.max() >> excess)
    return np.where(counts > 0, np.searchsorted(_HALF_STEPS, scaled, "right") + 1, 0).astype(np.uint8)


def lane_count(symbols: int) -> int:
    """A power of two: a lane per 16,384 symbols up to 64 lanes, then per 65,536, at most 1,024.

    A lane costs 4 bytes: 0.01 % of 36 million weights at 512 lanes, which still decode 38 million per second
    (4,096 lanes: three times that, and 0.1 %).
    """
    lanes = max(symbols // 65536, min(symbols // 16384, 64), 1)
    return 1 << min(lanes.bit_length() - 1, 10)


def rans_encode(
    planes: Iterable[tuple[np.ndarray, np.ndarray]], frequencies: np.ndarray, lanes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Code planes given LAST FIRST: each is (symbols uint8 (count,), tables int (count,)).

    frequencies: int64 (tables, 256).  -> (states uint32 (lanes,), words uint16), as the decoder wants them.
    """
    starts = np.cumsum(frequencies, 1) - frequencies
    packed = (frequencies | starts << 16).ravel()
    states = np.full(lanes, STATE_FLOOR, np.int64)
    chunks = []
    for symbols, tables in planes:
        for start in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
            entry = packed[(tables[start : start + lanes].astype(np.int64) << 8) + symbols[start : start + lanes]]
            frequency, state = entry & 0xFFFF, states[: len(entry)]
            full = np.flatnonzero(state >> 32 - PRECISION >= frequency)
            chunks.append(state[full].astype("<u2"))
            state[full] >>= 16
            quotient = state // frequency
            states[: len(entry)] = state + quotient * ((1 << PRECISION) - frequency) + (entry >> 16)
    words = np.concatenate([*chunks[::-1], np.zeros(0, "<u2")])
    return states.astype("<u4"), words
