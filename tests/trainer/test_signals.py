"""Signals that are held back while something is half done."""

import signal

import pytest

from codec.errors import PgolfError
from trainer.run.signals import held


@pytest.fixture
def received():
    """Signals that acted."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


def test_a_held_signal_acts_once_at_the_end(received):
    with held():
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert received == []
    assert received == [signal.SIGTERM]


def test_an_error_acts_instead_of_a_held_signal(received):
    def full():
        with held():
            signal.raise_signal(signal.SIGTERM)
            raise PgolfError("no space")

    with pytest.raises(PgolfError, match="no space"):
        full()
    assert received == []
    signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]
