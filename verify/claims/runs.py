"""Runs to compare: which of a log's scores counts as its result, and what else is known of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codec.errors import InputError
from verify.budget import PARAMETER_GOLF
from verify.claims.log_reader import Kind, Log, Metric, read_log
from verify.claims.significance import Sample
from verify.claims.submission_json import SeedStatement, Statement, read_statement

STATED = "submission.json"
REFUSED: dict[Kind, str] = {
    "slot": "SLOT: a delta fitted on the targets it scores, or shared with rows that were, breaks strict causal "
    "dependence; a log cannot show one that is fitted per row on context only",
    "etlb": "ETLB: adapts a bias on the vocabulary; nobody has ruled on it",
    "mixture": "n-gram or byte mixture: a log cannot show that the mixed probabilities sum to one",
    "rescored": "a second pass: every target was scored and used before",
    "prequant_ttt": "trained on validation tokens before they were scored",
    "float": "the score of float weights, not of the artifact",
    "training": "the score of float weights, not of the artifact",
    "other": "an unknown label: it cannot be told what was scored",
}
HIDDEN = (  # settings that change what a harmless label means: pattern, kinds it spoils, why
    (r"slot_in_ttt$", ("ttt",), "its settings say slot_in_ttt: " + REFUSED["slot"]),
    (
        r"pre_?quant_ttt(_enabled)?$",
        ("roundtrip", "sliding", "ttt"),
        "its settings say prequant_ttt: " + REFUSED["prequant_ttt"],
    ),
)
ADAPTIVE = ("ttt", "slot", "etlb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A score that does not count, and why."""

    metric: Metric
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A log's result: its last legal score.  refused: scores of the artifact that came later, last first.

    of_artifact: False when the log has no legal score of a packed model; then it is the last one of float weights.
    """

    metric: Metric
    refused: tuple[Refusal, ...]
    of_artifact: bool


def headline(log: Log) -> Headline:
    """The last score whose label and settings speak for a legal procedure; a label proves nothing, an audit does.

    Raises: InputError when not even float weights were scored.
    Source: docs/rules.md, log.headline.
    """
    refused: list[Refusal] = []
    for metric in reversed(log.metrics):
        if metric.kind in ("training", "float"):
            continue
        reasons = _reasons(log, metric)
        if not reasons:
            return Headline(metric=metric, refused=tuple(refused), of_artifact=True)
        refused.append(Refusal(metric=metric, reasons=reasons))
    floats = [metric for metric in log.metrics if metric.kind in ("training", "float")]
    if not floats:
        raise InputError(
            f"holds no score that counts: `{refused[0].metric.label}` is {refused[0].reasons[0]}",
            where=str(log.path),
            hint="log a roundtrip, sliding or score-first TTT score",
        )
    return Headline(metric=floats[-1], refused=tuple(refused), of_artifact=False)


def needed_seconds(log: Log, metric: Metric) -> float | None:
    """Evaluation time of one score: its own pass, and for a refused one the adaptive passes it starts from."""
    before = [each for each in log.metrics if each.kind in ADAPTIVE and each.line < metric.line]
    passes = [*before, metric] if metric.kind in REFUSED else [metric]
    known = [each.seconds for each in passes if each.seconds is not None]
    return sum(known) if known else None


def all_seconds(log: Log) -> float | None:
    """Evaluation time of every pass over the packed model, or the log's own total where that is more."""
    known = [each.seconds for each in log.metrics if each.kind not in ("training", "float") and each.seconds]
    passes = sum(known) if known else None
    return max((value for value in (passes, log.eval_seconds) if value is not None), default=None)


def _reasons(log: Log, metric: Metric) -> tuple[str, ...]:
    reasons = [REFUSED[metric.kind]] if metric.kind in REFUSED else []
    reasons += [
        why
        for pattern, kinds, why in HIDDEN
        if metric.kind in kinds and any(re.search(pattern, key) and _true(log.settings[key]) for key in log.settings)
    ]
    earlier = [each for each in log.metrics if each.line < metric.line]
    if any(each.kind == "prequant_ttt" for each in earlier):
        reasons.append("the weights were " + REFUSED["prequant_ttt"])
    trained = next((each for each in earlier if each.kind == "ttt"), None)
    if reasons and trained and metric.kind != "ttt":
        reasons.append(f"it follows `{trained.label}`: on the weights that leaves, every target was already trained on")
    seconds = needed_seconds(log, metric)
    if reasons and seconds and seconds > PARAMETER_GOLF.eval_seconds:
        reasons.append(f"it needs {seconds:.1f} s of evaluation, {PARAMETER_GOLF.eval_seconds} allowed")
    return tuple(reasons)


def _true(text: str) -> bool:
    return text.strip().lower() in ("true", "1")


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

    @property
    def sample(self) -> Sample:
        """The scores, in bits per byte."""
        return Sample(values=tuple(run.bpb for run in self.runs))

    @property
    def losses(self) -> Sample | None:
        """The scores in nats per token, when every run has one."""
        losses = [run.loss for run in self.runs if run.loss is not None]
        return Sample(values=tuple(losses)) if len(losses) == len(self.runs) else None

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
