"""Runs to compare: which of a log's scores counts as its result, and what else is known of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codec.errors import InputError
from verify.claims.headline import Refusal, all_seconds, headline
from verify.claims.log_reader import Log, read_log
from verify.claims.significance import SeedScores
from verify.claims.submission_json import SeedStatement, Statement, read_statement

STATED = "submission.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One seed's result.  label: the score taken, or `submission.json` when no log shows it.

    loss: nats per token; sizes in bytes; all None where unknown.  decimals: to which bpb is known.
    """

    name: str
    seed: int | None
    label: str
    bpb: float
    loss: float | None
    decimals: int
    model_bytes: int | None = None
    code_bytes: int | None = None
    total_bytes: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    refused: tuple[Refusal, ...] = ()

    @classmethod
    def of_log(cls, log: Log) -> "Run":
        """The result that a log shows.  Raises: InputError as `headline`."""
        result = headline(log)
        return cls(
            name=log.name,
            seed=log.seed,
            label=result.metric.label,
            bpb=result.metric.bpb,
            loss=result.metric.loss,
            decimals=result.metric.decimals,
            model_bytes=log.sizes.model,
            code_bytes=log.sizes.code,
            total_bytes=log.sizes.total,
            train_seconds=log.train_seconds,
            eval_seconds=all_seconds(log),
            refused=result.refused,
        )

    @classmethod
    def of_statement(cls, name: str, stated: SeedStatement | Statement) -> "Run":
        """A result that nothing but submission.json shows."""
        return cls(
            name=name,
            seed=stated.seed if isinstance(stated, SeedStatement) else None,
            label=STATED,
            bpb=float(stated.bpb or 0),
            loss=None if stated.loss is None else float(stated.loss),
            decimals=len(str(stated.bpb).partition(".")[2]),
            total_bytes=None if stated.total is None else int(stated.total),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs of one recipe, a seed each.  logs: as many as were given.  statement: their submission.json.

    readme: text of the README beside it.  skipped: files of folders that hold no score.
    """

    runs: tuple[Run, ...]
    logs: tuple[Log, ...]
    statement: Statement | None
    readme: str
    skipped: tuple[Path, ...]

    @classmethod
    def of_logs(cls, logs: Sequence[Log]) -> "Group":
        """The runs of these logs, of which nothing is stated.  Raises: InputError as `headline`."""
        return cls(runs=tuple(map(Run.of_log, logs)), logs=tuple(logs), statement=None, readme="", skipped=())

    @property
    def sample(self) -> SeedScores:
        """The scores, in bits per byte."""
        return SeedScores(values=tuple(run.bpb for run in self.runs))

    @property
    def losses(self) -> SeedScores | None:
        """The scores in nats per token, when every run has one."""
        losses = [run.loss for run in self.runs if run.loss is not None]
        return SeedScores(values=tuple(losses)) if len(losses) == len(self.runs) else None

    @property
    def bpb_per_nat(self) -> float | None:
        """The ratio of the means, a constant of tokenizer and text."""
        return self.sample.mean / self.losses.mean if self.losses and self.losses.mean > 0 else None


def read_group(paths: Sequence[str | Path]) -> Group:
    """Read logs, submission.json files, and folders that hold them, as runs of one recipe.

    The runs come from the logs; from submission.json only when there is none.
    Raises: InputError when a file is unreadable, or nothing has a score; two submission.json are one too many.
    """
    logs: list[Log] = []
    statements: list[Statement] = []
    skipped: list[Path] = []
    for path in map(Path, paths):
        for file in _files(path):
            if file.suffix == ".json":
                statements.append(read_statement(file))
                continue
            try:
                logs.append(read_log(file))
            except InputError:
                if file == path:
                    raise
                skipped.append(file)
    if len(statements) > 1:
        raise InputError(
            f"is the second submission.json, after {statements[0].path}; runs of one recipe share one",
            where=str(statements[1].path),
            hint="compare the other with --against",
        )
    statement = statements[0] if statements else None
    runs = [Run.of_log(log) for log in logs] or (_stated_runs(statement) if statement else [])
    if not runs:
        where = str(statement.path) if statement else ", ".join(map(str, paths))
        raise InputError("holds no score", where=where, hint="pass a training log or a submission.json")
    return Group(
        runs=tuple(runs),
        logs=tuple(logs),
        statement=statement,
        readme=_readme(statement),
        skipped=tuple(skipped),
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    named = [file for pattern in ("*.log", "*.txt") for file in path.glob(pattern) if file.name != "requirements.txt"]
    logs = sorted(named, key=lambda file: re.sub(r"\d+", lambda number: number[0].zfill(9), file.name))  # seed 42 first
    statement = path / STATED
    found = [file for file in [*logs, statement] if file.is_file()]
    if not found:
        raise InputError(f"holds neither *.log nor {STATED}", where=str(path), hint="pass the folder of a run")
    return found


def _stated_runs(statement: Statement) -> list[Run]:
    seeds = [Run.of_statement(f"{STATED}, seed {each.seed}", each) for each in statement.seeds if each.bpb is not None]
    return seeds or ([Run.of_statement(STATED, statement)] if statement.bpb is not None else [])


def _readme(statement: Statement | None) -> str:
    if not statement:
        return ""
    try:
        return (statement.path.parent / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:  # most often there is none; it only adds numbers to look for
        return ""
