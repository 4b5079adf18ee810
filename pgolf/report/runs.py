"""Facts of runs, from their logs: curves, phases, and how sure the mean of the seeds is."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from codec.budget import PARAMETER_GOLF
from pgolf.report.facts import CurvePoint, Missing, Phase, RunFacts, SeedFacts, Subject

if TYPE_CHECKING:
    from verify.claims.log_reader import Log
    from verify.claims.runs import Group, Run
    from verify.claims.significance import SeedScores

POINTS = 120  # of a curve: more than a pixel of the picture's width would not show
TRAINED = re.compile(r"(?:step:)?(\d{1,9})/\d{1,9} train_loss: ?(\d{1,6}\.\d{1,12})(.*)")
CLOCK = re.compile(r"train_time: ?(\d{1,12}(?:\.\d{1,6})?) ?(ms|s|m)\b")
PHASES = re.compile(r"phase_times ((?:\w+:\d{1,12}ms ?)+)$")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def runs_subject(
    group: "Group", name: str, cap: int, against: "SeedScores | None" = None, more: tuple[Missing, ...] = ()
) -> Subject:
    """The runs of one recipe as a subject of their own, judged as `pgolf compare` judges them.  more: also missing."""
    from verify.claims.group_rules import check_group
    from verify.claims.significance import compare

    comparison = compare(group.sample, against, group.bpb_per_nat) if against else None
    findings = check_group(group, cap, comparison)
    totals = [run.total_bytes for run in group.runs if run.total_bytes is not None]
    return Subject(
        name=name,
        kind="runs",
        cap=cap,
        total_bytes=max(totals, default=None),
        seeds=seed_facts(group, name, against),
        findings=findings,
        verdict="fail" if any(finding.level == "fail" for finding in findings) else "pass",
        notes=(*(f"{path.name} holds no score" for path in group.skipped), *group.notes),
        missing=(*missing_of_runs(group, against), *more),
    )


def seed_facts(group: "Group", name: str, against: "SeedScores | None" = None) -> SeedFacts:
    """Curves and phases of each run, mean and spread of all."""
    from verify.claims.significance import compare

    logs: list[Log | None] = [*group.logs] or [None] * len(group.runs)
    sample = group.sample
    return SeedFacts(
        name=name,
        runs=tuple(_run(run, log) for run, log in zip(group.runs, logs, strict=True)),
        mean=sample.mean,
        sd=sample.sd,
        bound=upper_bound(sample),
        comparison=compare(sample, against, group.bpb_per_nat) if against else None,
    )


def upper_bound(sample: "SeedScores") -> float | None:
    """The mean is below it with probability 1 - p of the record rule: mean + t sd / sqrt(n), Student's t of n - 1.

    So the one-sample t test with the shift is significant exactly where this bound is below the threshold.
    None for a sample without spread.
    """
    from verify.claims.significance import student_cdf

    deviation = math.sqrt(sample.variance_of_mean)
    if not deviation:
        return None
    low, high = 0.0, 1e4  # one degree of freedom at p = 0.01 has t = 31.8
    for _ in range(80):
        middle = (low + high) / 2
        enough = student_cdf(middle, len(sample.values) - 1) >= 1 - PARAMETER_GOLF.record_p
        low, high = (low, middle) if enough else (middle, high)
    return sample.mean + high * deviation


def thinned(points: list[CurvePoint]) -> tuple[CurvePoint, ...]:
    """Evenly spread over the lines, the last one always kept."""
    if len(points) <= POINTS:
        return tuple(points)
    last = len(points) - 1
    return tuple(points[round(last * place / (POINTS - 1))] for place in range(POINTS))


def _run(run: "Run", log: "Log | None") -> RunFacts:
    training, told = _read(log.path, log.run, log.runs) if log else ([], ())
    validation = [
        CurvePoint(step=step, seconds=_seconds(metric.notes.get("train_time", "")), value=metric.bpb)
        for metric in (log.metrics if log else ())
        if metric.kind == "training" and (step := _step(metric.label)) is not None
    ]
    return RunFacts(
        name=run.name,
        seed=run.seed,
        label=run.label,
        bpb=run.bpb,
        loss=run.loss,
        total_bytes=run.total_bytes,
        train_seconds=run.train_seconds,
        eval_seconds=run.eval_seconds,
        training=thinned(training),
        validation=thinned(validation),
        phases=_phases(log, told) if log else (),
    )


def _phases(log: "Log", told: tuple[tuple[str, float], ...]) -> tuple[Phase, ...]:
    """Training, what the log's own line of phases adds, each pass that was timed, and all of the packed model's."""
    from verify.claims.headline import all_seconds

    found = [] if log.train_seconds is None else [Phase(name="train", seconds=log.train_seconds, kind="train")]
    found += [
        Phase(name=name, seconds=seconds, kind="other") for name, seconds in told if name != "train" and seconds >= 0.05
    ]
    for metric in log.metrics:
        if metric.seconds is not None and metric.kind != "training":
            kind: Literal["eval", "other"] = "other" if metric.kind in ("float", "diagnostic") else "eval"
            found.append(Phase(name=metric.label, seconds=metric.seconds, kind=kind))
    passes = sum(phase.kind == "eval" for phase in found)
    every = all_seconds(log)
    if every is not None and passes != 1:
        found.append(Phase(name="all of evaluation", seconds=every, kind="eval"))
    return tuple(found)


def _read(path: Path, run: int, runs: int) -> tuple[list[CurvePoint], tuple[tuple[str, float], ...]]:
    """(training losses, phases) of one run of a log; nothing of a file whose runs cannot be told apart by their steps.

    A step that is not after the one before begins another run.
    """
    from codec.storage.atomic_files import read_bytes
    from verify.claims.log_text import read_lines

    parts: list[list[CurvePoint]] = [[]]
    told: dict[str, float] = {}
    for line in read_lines(read_bytes(path))[0]:
        if found := TRAINED.match(line.text):
            point = CurvePoint(step=int(found[1]), seconds=_clock(found[3]), value=float(found[2]))
            if parts[-1] and point.step <= parts[-1][-1].step:
                parts.append([])
            parts[-1].append(point)
        elif found := PHASES.match(line.text):
            pairs = (pair.split(":") for pair in found[1].split())
            told |= {name: int(spent.removesuffix("ms")) / 1000 for name, spent in pairs}
    if len(parts) != runs:
        return [], ()
    return parts[run - 1], tuple(told.items()) if runs == 1 else ()


def _clock(text: str) -> float | None:
    found = CLOCK.search(text)
    return float(found[1]) * UNITS[found[2]] if found else None


def _seconds(text: str) -> float | None:
    return _clock(f"train_time:{text}") if text else None


def _step(label: str) -> int | None:
    found = re.search(r"\d{1,9}", label)
    return int(found[0]) if found else None


def missing_of_runs(group: "Group", against: "SeedScores | None") -> list[Missing]:
    """What these runs do not show."""
    missing = []
    if not group.logs:
        missing.append(
            Missing(what="training curve and phases", how="pass the logs too: submission.json holds neither")
        )
    if not against:
        missing.append(Missing(what="significance against another result", how="`--against MEAN`, a run or a record"))
    if len(group.runs) < 2:
        missing.append(Missing(what="spread over seeds", how="pass the logs of more seeds"))
    return missing
