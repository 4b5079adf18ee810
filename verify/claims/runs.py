"""Runs to compare: which of a log's scores counts as its result, and what else is known of it."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes
from verify.claims.headline import Refusal, all_seconds, headline, stated_bpb
from verify.claims.log_reader import Log, read_logs
from verify.claims.recipe import differing_settings
from verify.claims.significance import SeedScores
from verify.claims.submission_json import SeedStatement, Statement, agrees, read_statement

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
    def of_log(cls, log: Log, stated: Decimal | None = None) -> "Run":
        """The result that a log shows; stated: as in `headline`.  Raises: InputError as `headline`."""
        result = headline(log, stated)
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

    readme: text of the README beside it.  skipped: files of folders that hold no score.  notes: what else was left
    out, and why: copies, killed runs, runs that the statement is not about.
    """

    runs: tuple[Run, ...]
    logs: tuple[Log, ...]
    statement: Statement | None
    readme: str
    skipped: tuple[Path, ...]
    notes: tuple[str, ...] = ()

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
    notes: list[str] = []
    seen: dict[str, Path] = {}
    for path in map(Path, paths):
        for file in _files(path):
            if file.suffix == ".json":
                statements.append(read_statement(file))
                continue
            first = seen.setdefault(hashlib.sha256(read_bytes(file)).hexdigest(), file)
            if first is not file and path.is_dir():
                notes.append(f"{file} is {first.name} again and is left out")
                continue
            try:
                found = read_logs(file)
            except InputError:
                if file == path:
                    raise
                skipped.append(file)
                continue
            logs += [log for log in found if not log.killed]
            notes += [_killed(log) for log in found if log.killed]
    if len(statements) > 1:
        raise InputError(
            f"is the second submission.json, after {statements[0].path}; runs of one recipe share one",
            where=str(statements[1].path),
            hint="compare the other with --against",
        )
    statement = statements[0] if statements else None
    logs, others = _chosen(logs, statement)
    notes += others
    alone = len(logs) == 1
    runs = [Run.of_log(log, stated_bpb(log, statement, alone=alone)) for log in logs]
    runs = runs or (_stated_runs(statement) if statement else [])
    if not runs:
        where = str(statement.path) if statement else ", ".join(map(str, paths))
        why = f": {notes[0]}" if notes else ""
        raise InputError(f"holds no score{why}", where=where, hint="pass a training log or a submission.json")
    return Group(
        runs=tuple(runs),
        logs=tuple(logs),
        statement=statement,
        readme=_readme(statement),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _killed(log: Log) -> str:
    seed = "" if log.seed is None else f" of seed {log.seed}"
    return f"{log.name}{seed} was killed at step {log.steps or 0} and has no score"


def _chosen(logs: list[Log], statement: Statement | None) -> tuple[list[Log], list[str]]:
    """(The logs that a submission.json speaks of, why others are left out.)

    A folder may hold more runs than its record: reruns of a seed, and runs of other seeds or recipes.  If every named
    seed has a log, those of other seeds are left out.  Where the score stated for a seed is one of a log of that seed,
    the others of it are left out; so is a log that does not show it and has other settings than those that show theirs.
    """
    if statement is None:
        return logs, []
    named = set(statement.seed_numbers)
    if not named or not named <= {log.seed for log in logs}:
        return logs, []
    of_seed = {seed: [log for log in logs if log.seed == seed] for seed in named}
    shown = {each.seed: [log for log in of_seed[each.seed] if _shows(log, each)] for each in statement.seeds}
    models = [log for found in shown.values() for log in found]
    kept = []
    for log in logs:
        if log.seed in named and log.seed is not None:
            stands_for = shown.get(log.seed, []) or ([] if models and differing_settings([models[0], log]) else [log])
            kept += [log] if log in stands_for else []
    notes = [f"{log.name} is not among the runs that {statement.path.name} names" for log in logs if log not in kept]
    return kept, notes


def _shows(log: Log, one: SeedStatement) -> bool:
    scores = [metric for metric in log.metrics if metric.kind != "training"]
    return one.bpb is not None and any(agrees(one.bpb, metric.bpb, metric.decimals) for metric in scores)


def _files(path: Path) -> list[Path]:
    """The logs of a folder, or of the folders in it when it has none itself; then what it states."""
    if not path.is_dir():
        return [path]
    logs = _logs(path, "*") or _logs(path, "*/*") or _logs(path, "*/*/*")
    statements = sorted(path.glob("submission*.json"), key=lambda file: (file.name != STATED, file.name))
    found = [file for file in [*logs, *statements[:1]] if file.is_file()]
    if not found:
        raise InputError(f"holds neither *.log nor {STATED}", where=str(path), hint="pass the folder of a run")
    return found


def _logs(folder: Path, depth: str) -> list[Path]:
    named = [file for ending in (".log", ".txt") for file in folder.glob(depth + ending)]
    named = [file for file in named if file.name != "requirements.txt"]
    return sorted(named, key=lambda file: re.sub(r"\d+", lambda number: number[0].zfill(9), str(file)))  # 42 first


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
