"""What every subcommand shares: the --json flag, tables on stdout, progress on stderr."""

import json
import math
import sys
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
def progress(label: str, total: int, *, left: bool = True) -> Iterator[Progress]:
    """A progress bar on stderr when it is a terminal; otherwise one plain line about every 15 seconds.

    left: whether to add the time left; training knows its own.
    """
    added = _time_left(total) if left else lambda done: ""
    if sys.stderr.isatty():
        with click.progressbar(
            length=total,
            label=label,
            file=sys.stderr,
            show_pos=True,
            show_eta=False,  # click's counts the time before the first report, and shows one without progress
            item_show_func=lambda note: note or "",
        ) as bar:
            yield lambda done, note: bar.update(done - bar.pos, note + added(done))
        return
    last_line = time.monotonic()

    def line(done: int, note: str) -> None:
        nonlocal last_line
        rest = added(done)
        if time.monotonic() - last_line > 15:
            last_line = time.monotonic()
            click.echo(f"{label}: {done}/{total} {note}{rest}", err=True)

    yield line


def _time_left(total: int) -> Callable[[int], str]:
    """Units done -> ", 0:01:30 left", by the pace since the first report: loading a model comes before it, and once.

    A second pass, which counts from the beginning again, has a pace of its own.
    """
    first, started, before = total, 0.0, total

    def text(done: int) -> str:
        nonlocal first, started, before
        if done < before:
            first, started = done, time.monotonic()
        before = done
        if not first < done < total:
            return ""
        seconds = (time.monotonic() - started) * (total - done) / (done - first)
        return f", {timedelta(seconds=round(seconds))} left"

    return text
