"""What every subcommand shares: the --json flag, tables on stdout, progress on stderr."""

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click

from codec.progress import Progress

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of a table."
)


def echo(text: object, *, err: bool = False) -> None:
    """One line on stdout or stderr; what it quotes of others' files cannot act on the terminal."""
    click.echo(_printable(text), err=err)


def _printable(text: object) -> str:
    from codec.errors import printable  # here, because it loads numpy, which `--help` should not wait for

    return printable(text)


def print_json(value: dict[str, Any]) -> None:
    """One object, one line, on stdout; numbers that JSON cannot write (infinite, NaN) become null."""
    click.echo(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(rows: Sequence[Sequence[Any]], headers: Sequence[str] = ()) -> None:
    """A plain table on stdout; strings are printed as given, so callers choose the digits, each on one line."""
    from tabulate import tabulate

    click.echo(
        tabulate(
            [[_printable(cell) for cell in row] for row in rows],
            headers=[_printable(header) for header in headers],
            tablefmt="simple",
            disable_numparse=True,
            colalign=("left", *["right"] * (len(rows[0]) - 1)),
        )
    )


@contextmanager
def progress(label: str, total: int, *, left: bool = True, most: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr when it is a terminal; otherwise one plain line about every 15 seconds.

    The time on it goes on where nothing is reported, because a step of the work may be one call into a library.
    left: whether to add the time left; training knows its own.  most: the work may end before `total`, so that this is
    the most that can be left; then the bar ends full all the same.
    """
    clock = TimeLeft(total, left=left, most=most)
    with _bar(label, total, clock) if sys.stderr.isatty() else _lines(label, total, clock) as report:
        yield report
        if most:
            report(total, "")


LATE = 2.0  # seconds


class TimeLeft:
    """As text: ", 0:01:30 left", by the pace since the first report: loading a model comes before it, and once.

    A second pass, which counts from the beginning again, has a pace of its own.  Before there is a pace, and where a
    step takes longer than it let expect, or the end is reached and work goes on, the text is the time so far.
    """

    def __init__(self, total: int, *, left: bool = True, most: bool = False) -> None:
        self._total, self._left, self._most = total, left, "at most " if most else ""
        self._begun = self._started = self._told = time.monotonic()
        self._first = self._done = total

    def tell(self, done: int) -> None:
        """Units done."""
        now = time.monotonic()
        if done < self._done:
            self._first, self._started = done, now
        self._done, self._told = done, now

    def __str__(self) -> str:
        now = time.monotonic()
        moving = self._first < self._done
        ended = moving and self._done >= self._total
        if moving and (ended or not self._left) and now - self._told < LATE:
            return ""
        if moving and self._left and not ended:
            pace = (self._told - self._started) / (self._done - self._first)
            seconds = round(pace * (self._total - self._done) - (now - self._told))
            if seconds >= 0:
                return f", {self._most}{timedelta(seconds=seconds)} left"
        past = int(now - self._begun)
        return f", {timedelta(seconds=past)} so far" if past else ""


@contextmanager
def _bar(label: str, total: int, clock: TimeLeft) -> Iterator[Progress]:
    lock = threading.Lock()

    def beside(note: str | None) -> str:
        return f"{note or ''}{clock}".removeprefix(", ")

    with click.progressbar(
        length=total,
        label=label,
        file=sys.stderr,
        show_pos=True,
        show_eta=False,  # click's counts the time before the first report, and shows one without progress
        item_show_func=beside,
    ) as bar:

        def report(done: int, note: str) -> None:
            with lock:
                clock.tell(done)
                bar.update(min(done, total) - bar.pos, note)
                bar.render_progress()  # `update` draws a longer bar only, not another note

        def tick() -> None:
            with lock:
                bar.render_progress()

        with _every(1.0, tick):
            yield report


@contextmanager
def _lines(label: str, total: int, clock: TimeLeft) -> Iterator[Progress]:
    lock, last, line = threading.Lock(), time.monotonic(), f"0/{total}"

    def say() -> None:
        nonlocal last
        if time.monotonic() - last > 15:
            last = time.monotonic()
            click.echo(f"{label}: {line}{clock}", err=True)

    def report(done: int, note: str) -> None:
        nonlocal line
        with lock:
            clock.tell(done)
            line = f"{done}/{total} {note}"
            say()

    def tick() -> None:
        with lock:
            say()

    with _every(1.0, tick):
        yield report


@contextmanager
def _every(seconds: float, tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` so often, from a thread that ends with the block."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            tick()

    thread = threading.Thread(target=run, daemon=True)
    # It inherits the mask: signals are for the thread that works, which may hold them back (pgolf.doctor.examination).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield
    finally:
        ended.set()
        thread.join()
