import constriction
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codec.errors import InputError
from verify.audit.round_trip import Decoder, Encoder


@st.composite
def messages(draw):
    """Symbols with a distribution each: flat ones, peaked ones, impossible symbols among them."""
    size, count = draw(st.integers(1, 40)), draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(0, draw(st.sampled_from([0.0, 1.0, 8.0])), (count, size))
    rows = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    p = np.exp(rows)
    likely = [int(rng.choice(size, p=one / one.sum())) for one in p]
    symbols = draw(st.one_of(st.just(likely), st.lists(st.integers(0, size - 1), min_size=count, max_size=count)))
    return symbols, rows


def code(symbols, rows):
    encoder = Encoder()
    for symbol, row in zip(symbols, rows, strict=True):
        encoder.encode(symbol, row)
    return encoder.finish()


@given(messages())
def test_what_was_coded_comes_back(message):
    symbols, rows = message
    decoder = Decoder(code(symbols, rows).data)
    assert [decoder.decode(row) for row in rows] == symbols


def rare(logs):
    """One distribution over three symbols, the middle one of this logarithm."""
    rest = np.log(-np.expm1(logs)) - np.log(2)
    return np.array([[rest, logs, rest]])


@example(([1], rare(-19.9485496)))
@example(([1, 1], np.concatenate([rare(-19.9485496), rare(-8.52055395)])))
@example(([1], rare(-40.0)))
@given(messages())
def test_the_code_is_as_long_as_the_probabilities_ask_for(message):
    symbols, rows = message
    ideal = -sum(row[symbol] for symbol, row in zip(symbols, rows, strict=True)) / np.log(2)
    made = code(symbols, rows)
    # A frequency is p 2^32 rounded up, so rare symbols cost a little less than they ask for; Hypothesis finds them.
    cheap = sum(np.log2(1 + np.exp(-row[symbol]) / 2**32) for symbol, row in zip(symbols, rows, strict=True))
    assert ideal - cheap - 0.01 <= made.bits <= ideal + 1.01
    assert len(made.data) == -(-made.bits // 8)


def test_as_short_as_another_range_coder():
    rng = np.random.default_rng(3)
    rows = np.log(rng.dirichlet(np.full(50, 0.3), 2000) * (1 - 1e-4) + 2e-6)
    rows -= np.log(np.exp(rows).sum(1, keepdims=True))
    symbols = np.array([rng.choice(50, p=np.exp(row)) for row in rows], np.int32)
    other = constriction.stream.queue.RangeEncoder()
    for symbol, row in zip(symbols, rows, strict=True):
        other.encode(int(symbol), constriction.stream.model.Categorical(np.exp(row), perfect=False))
    ours = code(symbols.tolist(), rows).bits
    assert ours <= 32 * len(other.get_compressed()) <= ours + 66  # it writes whole words of 32 bits


def test_carries_travel_through_long_runs_of_ones():
    """Likely symbols at the top of the range leave ones behind, through which a late carry ripples."""
    top = np.log([2**-30, 1 - 2**-30])
    for last in (0, 1):
        symbols = [1] * 500 + [last]
        decoder = Decoder(code(symbols, [top] * 501).data)
        assert [decoder.decode(top) for _ in symbols] == symbols


def test_an_impossible_symbol_can_still_be_coded():
    row = np.array([0.0, -np.inf])
    decoder = Decoder(code([1, 0], [row, row]).data)
    assert [decoder.decode(row), decoder.decode(row)] == [1, 0]


@pytest.mark.parametrize("row", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_what_is_no_distribution_is_refused(row):
    with pytest.raises(InputError, match="cannot be coded"):
        Encoder().encode(0, np.array(row))


def test_missing_probability_is_paid_for():
    """Rows that sum to 1.5 code no better than if they were normalized: the surplus shows as bits."""
    row = np.log(np.full(8, 1.5 / 8))
    assert code([3] * 1000, [row] * 1000).bits == pytest.approx(3000, abs=1)
