"""Record folders of the challenge: what their logs show by `pgolf compare`, beside the challenge's leaderboard.

One row a folder: the mean that the logs give, the leaderboard's figure, and where these differ what was found.  Then
every failed finding, and every line that names bits per byte and that no grammar reads.

RECORDS holds folders at any depth, and leaderboard.json: folder -> bits per byte.

python -m benchmarks.bench_records ../shared/data/records --output benchmarks/results/bench_records.json \\
    --page docs/records.md
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import wrap

import click

from codec.errors import InputError, PgolfError
from codec.storage.atomic_files import write_bytes
from codec.storage.json_file import read_json_object
from pgolf.console import print_table
from verify.claims.group_rules import check_group
from verify.claims.runs import STATED, read_group
from verify.finding import Finding

WIDTH = 118  # characters of a line of the page
NEAR = 1.5e-4  # bits per byte: the leaderboard prints four decimals, and some rows are rounded from rounded ones
EXPLAIN = ("claims.mean", "log.headline", "log.settings")  # rules whose findings can explain another score, best first


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One folder.  ours: mean of its runs, None when no log shows a score; stated and leaderboard: None without one.

    reason: why ours is another score than the leaderboard's, "" when it is the same.
    """

    folder: str
    runs: int
    ours: float | None
    stated: float | None
    leaderboard: float | None
    reason: str
    findings: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def near(self) -> bool:
        """Whether both scores are there and the same."""
        return None not in (self.ours, self.leaderboard) and abs(self.ours - self.leaderboard) <= NEAR  # type: ignore[operator]


def read_row(folder: Path, name: str, leaderboard: float | None) -> Row:
    """Raises: InputError when a file is unreadable, or nothing has a score."""
    group = read_group([folder])
    findings = check_group(group)
    ours = group.sample.mean if group.logs else None
    row = Row(
        folder=name,
        runs=len(group.logs),
        ours=ours,
        stated=float(group.statement.bpb) if group.statement and group.statement.bpb is not None else None,
        leaderboard=leaderboard,
        reason="",
        findings=[{"rule": each.rule, "level": each.level, "message": each.message} for each in findings],
        notes=[note.replace(f"{folder}/", "") for note in group.notes],
        unread=[f"{log.name}, {line}" for log in group.logs for line in log.unread],
    )
    if leaderboard is None or row.near:
        return row
    return Row(**{**asdict(row), "reason": _reason(findings, has_logs=bool(group.logs))})


def _reason(findings: tuple[Finding, ...], *, has_logs: bool) -> str:
    if not has_logs:
        return f"no log: nothing shows what {STATED} states"
    odd = [each for rule in EXPLAIN for each in findings if each.rule == rule and each.level != "pass"]
    return odd[0].message if odd else "not explained"


@click.command()
@click.argument("records", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
@click.option("--page", type=click.Path(path_type=Path), help="Markdown page to write.")
def bench(records: Path, output: Path | None, page: Path | None) -> None:
    """Print a table and write the JSON and the page."""
    rows = read_rows(records)
    print_table(_cells(rows), ("folder", "runs", "ours", "leaderboard", "difference"))
    click.echo(f"\n{summary(rows)}")
    for row in rows:
        for line in row.unread:
            click.echo(f"not understood: {row.folder}: {line}")
    if output is not None:
        write_bytes(output, (json.dumps([asdict(row) for row in rows], indent=1) + "\n").encode())
    if page is not None:
        write_bytes(page, as_page(rows).encode())


def read_rows(records: Path) -> list[Row]:
    """Every folder below that holds a submission.json or a log, by name."""
    figures = read_json_object(records / "leaderboard.json")
    found = (path for pattern in ("*/*/submission*.json", "*/*/train*.log") for path in records.glob(pattern))
    folders = sorted({path.parent for path in found})
    if not folders:
        raise InputError("holds no record folder", where=str(records), hint="pass the folder above the tracks")
    names = [folder.relative_to(records).as_posix() for folder in folders]
    return [read_row(folder, name, figures.get(name)) for folder, name in zip(folders, names, strict=True)]


def summary(rows: list[Row]) -> str:
    """How many of the leaderboard's rows are the same, and how many of the others are explained."""
    listed = [row for row in rows if row.leaderboard is not None]
    near, explained = sum(row.near for row in listed), sum(row.reason not in ("", "not explained") for row in listed)
    lines = sum(len(row.unread) for row in rows)
    return (
        f"{len(rows)} folders, {len(listed)} of them on the leaderboard: {near} within {NEAR:g}, {explained} explained "
        f"by a finding, {len(listed) - near - explained} not; {lines} lines with bits per byte are not understood."
    )


def _cells(rows: list[Row]) -> list[list[str]]:
    return [
        [
            row.folder.partition("/")[2],
            str(row.runs),
            _shown(row.ours, ".5f"),
            _shown(row.leaderboard, ".4f"),
            _shown(row.ours - row.leaderboard if row.ours and row.leaderboard else None, "+.5f"),
        ]
        for row in rows
    ]


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def as_page(rows: list[Row]) -> str:
    """The table, the reason of each difference, and all that fails."""
    lines = [
        "# Records",
        "",
        "What the logs of the challenge's record folders show by `pgolf compare`, beside the challenge's leaderboard.",
        "Written by `python -m benchmarks.bench_records RECORDS --page docs/records.md`.",
        "",
        *wrap(summary(rows), WIDTH),
        "",
        "| folder | runs | ours | leaderboard | difference |",
        "|---|--:|--:|--:|--:|",
        *(f"| {' | '.join(cells)} |" for cells in _cells(rows)),
        "",
        "## Why a score differs",
        "",
    ]
    for row in rows:
        lines += _item(row, row.reason) if row.reason else []
    lines += ["", "## What fails", ""]
    for row in rows:
        for each in row.findings:
            lines += _item(row, f"{each['rule']}: {each['message']}") if each["level"] == "fail" else []
    return "\n".join(lines) + "\n"


def _item(row: Row, text: str) -> list[str]:
    """An item of a list; names of folders are long, and no line of a page is."""
    return [f"- {row.folder.partition('/')[2]}", *wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")]


if __name__ == "__main__":
    try:
        bench.main(standalone_mode=False)
    except (PgolfError, click.ClickException) as error:
        sys.exit(f"Error: {error}")
