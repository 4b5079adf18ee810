"""Ctrl-C and SIGTERM as a flag that a loop reads when nothing is half done, or held back until it is done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptions() -> Iterator[threading.Event]:
    """An event that the first of these signals sets; a second one acts at once, as it would outside."""
    event, before = threading.Event(), _handlers()

    def note(*_: object) -> None:
        event.set()
        _install(before)

    _install(dict.fromkeys(before, note))
    try:
        yield event
    finally:
        _install(before)


@contextmanager
def held() -> Iterator[None]:
    """The first of these signals that comes inside acts at the end: torchrun sends one when any process has ended.

    An error inside ends the run as well, so that one acts instead.
    """
    late: list[int] = []
    before = _handlers()
    _install(dict.fromkeys(before, lambda number, _: late.append(number)))
    try:
        yield
    finally:
        _install(before)
    for number in late[:1]:
        signal.raise_signal(number)


def _handlers() -> dict[int, Any]:
    """Those of now; none outside the main thread, where Python allows no change."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def _install(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
