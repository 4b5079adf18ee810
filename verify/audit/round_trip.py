"""The proof of a scorer that gives its distributions: code tokens with them, decode without having seen the tokens."""

from dataclasses import dataclass

import numpy as np

from codec.errors import InputError
from verify.audit.perturbations import Scope
from verify.audit.trace import Difference, Trace, row_difference, trace
from verify.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """What became of the first `coded` targets.  bits: of the code.  ideal: bits that the scores ask for.

    decoded: how many targets came back right.  moved: why decoding stopped, the distribution that it could not get.
    """

    coded: int
    bits: int
    ideal: float
    decoded: int
    moved: Difference | None


def round_trip(scorer: Scorer, tokens: np.ndarray, base: Trace, scope: Scope) -> RoundTrip | None:
    """Code the first scope.coded targets with the distributions of base; decode them one by one.

    The decoder runs the scorer afresh for each target, over what it has decoded and filler of the same length.
    None when base lacks distributions or does not score these targets first and in order: the decoder of a queue
    would need to be told the lengths of documents.
    """
    count = min(scope.coded, len(tokens) - 1)
    if base.log_probs is None or not np.array_equal(base.positions[:count], np.arange(count)):
        return None
    encoder = Encoder()
    for position in range(count):
        encoder.encode(int(tokens[position + 1]), base.log_probs[position])
    code, decoder, moved = encoder.finish(), Decoder(encoder.finish().data), None
    ids, often = np.unique(tokens[tokens != scope.bos], return_counts=True)
    filler = ids[np.argmin(often)]  # the rarest: where the filler is the target, nothing is hidden
    decoded = np.append(tokens[:1], np.full(len(tokens) - 1, filler))
    right = 0
    for position in range(count):
        run = trace(scorer, decoded, batch=scope.batch, until=position)
        moved = row_difference(base, run, position)
        record = run.record(position)
        if moved or run.log_probs is None or record is None:
            break
        decoded[position + 1] = decoder.decode(run.log_probs[record])
        if decoded[position + 1] != tokens[position + 1]:
            break
        right += 1
    ideal = float(base.nats[:count].sum() / np.log(2))
    return RoundTrip(coded=count, bits=code.bits, ideal=ideal, decoded=right, moved=moved)


PRECISION = 32  # bits of a symbol's frequency: V ids lose V / 2^32 of the range, 2e-6 bits for 8,192
WIDEST = 96  # bits of the range after shifting: the rounding of a unit costs 2^-32 bits per symbol


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """data: the code, filled up to whole bytes.  bits: how many of them count."""

    data: bytes
    bits: int


class Encoder:
    """Codes one symbol after the other, each with its own distribution.

    Low is an integer of any length, so that carries need no care.  Source: Witten, Neal and Cleary 1987.
    """

    def __init__(self) -> None:
        self._low, self._range, self._bits = 0, 1 << WIDEST, WIDEST

    def encode(self, symbol: int, log_probs: np.ndarray) -> None:
        """log_probs: float (V,), natural logarithms; they need not sum to 1, the code pays for what is missing.

        Raises: InputError for NaN, for +inf and when nothing is possible.
        """
        start, stop = _interval(_cumulative(log_probs), symbol, self._range)
        self._low, self._range = self._low + start, stop - start
        while self._range >> (WIDEST - PRECISION) == 0:
            self._low, self._range, self._bits = (
                self._low << PRECISION,
                self._range << PRECISION,
                self._bits + PRECISION,
            )

    def finish(self) -> Code:
        """The shortest code of all symbols so far: at most one bit more than their probabilities ask for."""
        spare = self._range.bit_length() - 1  # so many low bits are free: a multiple of 2^spare lies in the range
        value = -(-self._low >> spare)
        bits = self._bits - spare
        size = -(-bits // 8)
        return Code(data=(value << (8 * size - bits)).to_bytes(size, "big"), bits=bits)


class Decoder:
    """Gives back what an Encoder was given, as long as it sees the same distributions."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._range, self._offset = data, 0, 1 << WIDEST, 0
        self._take(WIDEST)

    def decode(self, log_probs: np.ndarray) -> int:
        """The next symbol.  Raises: InputError as Encoder.encode."""
        cumulative = _cumulative(log_probs)
        place = min(self._offset // (self._range >> PRECISION), (1 << PRECISION) - 1)
        symbol = int(np.searchsorted(cumulative, place, side="right")) - 1
        start, stop = _interval(cumulative, symbol, self._range)
        self._offset, self._range = self._offset - start, stop - start
        while self._range >> (WIDEST - PRECISION) == 0:
            self._range <<= PRECISION
            self._take(PRECISION)
        return symbol

    def _take(self, bits: int) -> None:
        size = bits // 8
        piece = self._data[self._at : self._at + size]
        self._at += size
        self._offset = (self._offset << bits) | int.from_bytes(piece.ljust(size, b"\0"), "big")


def _cumulative(log_probs: np.ndarray) -> np.ndarray:
    """Integer frequencies, each at least 1, summed up: int64 (V + 1,) from 0 to 2^PRECISION."""
    p = np.exp(np.asarray(log_probs, np.float64))
    total = p.sum()
    if not (np.isfinite(total) and total > 0):
        raise InputError(f"probabilities with the sum {total} cannot be coded with", hint="give finite logarithms")
    frequency = np.floor(p / total * ((1 << PRECISION) - len(p))).astype(np.int64) + 1
    frequency[np.argmax(frequency)] += (1 << PRECISION) - frequency.sum()
    return np.concatenate([[0], np.cumsum(frequency)])


def _interval(cumulative: np.ndarray, symbol: int, size: int) -> tuple[int, int]:
    """The symbol's part of a range; the last symbol gets what division leaves over."""
    unit, last = size >> PRECISION, symbol == len(cumulative) - 2
    return unit * int(cumulative[symbol]), size if last else unit * int(cumulative[symbol + 1])
