"""What every subcommand shares: the --json flag, tables on stdout, progress on stderr."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

Progress = Callable[[int, str], None]  # (units done so far, a short note such as "bpb 2.31")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of a table."
)


def print_json(value: dict[str, Any]) -> None:
    """One object, one line, on stdout."""
    click.echo(json.dumps(value))


def print_table(rows: Sequence[Sequence[Any]], headers: Sequence[str] = ()) -> None:
    """A plain table on stdout; strings are printed as given, so callers choose the digits."""
    from tabulate import tabulate

    click.echo(
        tabulate(
            rows,
            headers=headers,
            tablefmt="simple",
            disable_numparse=True,
            colalign=("left", *["right"] * (len(rows[0]) - 1)),
        )
    )


@contextmanager
def progress(label: str, total: int) -> Iterator[Progress]:
    """A progress bar on stderr when it is a terminal; otherwise one plain line about every 15 seconds."""
    if sys.stderr.isatty():
        with click.progressbar(
            length=total,
            label=label,
            file=sys.stderr,
            show_pos=True,
            show_eta=False,
            item_show_func=lambda note: note or "",
        ) as bar:
            yield lambda done, note: bar.update(done - bar.pos, note)
        return
    last_line = time.monotonic()

    def line(done: int, note: str) -> None:
        nonlocal last_line
        if time.monotonic() - last_line > 15:
            last_line = time.monotonic()
            click.echo(f"{label}: {done}/{total} {note}", err=True)

    yield line
