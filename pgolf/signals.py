"""What SIGTERM and Ctrl-C do to a command, alone or as one of the processes that torchrun started.

torchrun sends SIGTERM to all processes when one has ended.  The first process says what all of them found; the others
write nothing and say nothing about a signal.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

# How much later than another process the first one may find the same error: importing torch takes it 2 seconds, on a
# busy machine several times that.  An error that the first one does not have is said this much later.
GRACE = 30.0  # seconds


@contextmanager
def command_signals() -> Iterator[None]:
    """SIGTERM inside ends a command as Ctrl-C does, so that nothing stays half-written; other ranks just end."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers nowhere else
        yield
        return
    handlers: dict[signal.Signals, Callable[..., None] | signal.Handlers] = {signal.SIGTERM: _interrupt}
    if is_another_rank():
        handlers = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_another_rank() -> bool:
    """Whether torchrun started this process, and not as the first."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


def let_the_first_speak() -> None:
    """Call before an error that all ranks find alike is said: torchrun ends the others when the first has said it.

    Returns in the others only if it did not.
    """
    if is_another_rank():
        time.sleep(GRACE)


def _interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt, unless an error is on its way up or being said: the command ends anyway, with that.

    Handlers run between two instructions of the program, so what is being handled there is what is handled here.
    """
    error = sys.exc_info()[1]
    if not (isinstance(error, KeyboardInterrupt | click.Abort) or hasattr(error, "exit_code")):
        raise KeyboardInterrupt
