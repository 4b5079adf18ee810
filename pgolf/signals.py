"""What SIGTERM and Ctrl-C do to a command, alone or as one of the processes that torchrun started.

torchrun sends SIGTERM to all processes when one has ended.  The first process says what all of them found; the others
write nothing and say nothing about a signal.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def command_signals() -> Iterator[None]:
    """SIGTERM inside ends a command as Ctrl-C does, so that nothing stays half-written; other ranks just end."""
    from trainer.run.launched import is_another_rank

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


def _interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt, unless an error is on its way up or being said: the command ends anyway, with that.

    Handlers run between two instructions of the program, so what is being handled there is what is handled here.
    """
    error = sys.exc_info()[1]
    if not (isinstance(error, KeyboardInterrupt | click.Abort) or hasattr(error, "exit_code")):
        raise KeyboardInterrupt
