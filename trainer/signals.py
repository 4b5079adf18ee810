"""Ctrl-C and SIGTERM as a flag that a loop reads when nothing is half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptions() -> Iterator[threading.Event]:
    """An event that the first of these signals sets; a second one acts at once, as it would outside."""
    event, before = threading.Event(), {}

    def restore(*_: object) -> None:
        event.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
        before.update({number: signal.signal(number, restore) for number in (signal.SIGINT, signal.SIGTERM)})
    try:
        yield event
    finally:
        restore()
