"""`pgolf compare`: runs of one recipe, from their logs: mean, spread, and whether they beat another."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codec.errors import UsageError
from pgolf.console import echo, json_option, print_json, print_table
from pgolf.options import cap_option
from pgolf.tables import print_findings

if TYPE_CHECKING:
    from verify.claims.runs import Group, Run
    from verify.claims.significance import Comparison, Name, SeedScores
    from verify.finding import Finding

LARGEST_BPB = 20.0  # a larger number is a pull request's, not a score


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--against",
    multiple=True,
    metavar="MEAN|RUN|RECORD",
    help="What to beat: a mean in bits per byte, a log, folder or submission.json, or a published record's number. "
    "Repeat it for several runs or seeds.",
)
@cap_option
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the runs as a submission.json, from logs only.",
)
@json_option
def compare(runs: tuple[Path, ...], against: tuple[str, ...], cap: int, write: Path | None, as_json: bool) -> int:
    """What RUN..., the seeds of one recipe, add up to, recomputed from their logs.

    RUN: a log, a submission.json, or a folder that holds them. The score of a run is its last legal one. Tests are
    one-sided; those with the shift ask for 0.005 nats per token beyond --against, the rule for a record.
    Exit code 1 when a finding fails.

    \b
    Example:
      pgolf compare train_seed42.log train_seed314.log train_seed999.log --against 1.0810
      pgolf compare records/mine --against 1493 --write submission.json
    """
    from codec.storage.atomic_files import write_bytes
    from verify.claims import significance
    from verify.claims.group_rules import check_group
    from verify.claims.runs import read_group
    from verify.claims.write_submission_json import as_submission_json

    group = read_group(runs)
    other = scores_to_beat(against) if against else None
    comparison = significance.compare(group.sample, other, group.bpb_per_nat) if other else None
    findings = check_group(group, cap, comparison)
    if write:
        text = json.dumps(as_submission_json(group, findings, comparison), indent=2, ensure_ascii=False)
        write_bytes(write, f"{text}\n".encode())
    for path in group.skipped:
        echo(f"note: {path} holds no score", err=True)
    for note in group.notes:
        echo(f"note: {note}", err=True)
    if as_json:
        print_json(_object(group, findings, comparison, against, cap))
    else:
        _print(group, findings, comparison, against, cap)
    return 1 if any(finding.level == "fail" for finding in findings) else 0


def scores_to_beat(against: tuple[str, ...]) -> "SeedScores":
    """The scores to beat: those of a record, of runs, or given as numbers."""
    from verify.claims.reference_results import RECORDS
    from verify.claims.runs import read_group
    from verify.claims.significance import SeedScores

    values: list[float] = []
    paths: list[str] = []
    for each in against:
        if (name := each.removeprefix("#")) in RECORDS:
            values += RECORDS[name].bpb
        elif Path(each).exists():
            paths.append(each)
        else:
            values.append(_mean(each, tuple(RECORDS)))
    if paths:
        values += read_group(paths).sample.values
    return SeedScores(values=tuple(values))


def _mean(text: str, records: tuple[str, ...]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < LARGEST_BPB:
        raise UsageError(
            f"--against `{text}` is neither a mean in bits per byte, nor a file, nor a published record",
            hint=f"records: {', '.join(records)}",
        )
    return value


def _object(
    group: "Group", findings: "Sequence[Finding]", comparison: "Comparison | None", against: tuple[str, ...], cap: int
) -> dict[str, Any]:
    from dataclasses import asdict

    found: dict[str, Any] = {
        "runs": [_run(run, cap) for run in group.runs],
        "mean_bpb": group.sample.mean,
        "sd_bpb": group.sample.sd,
        "mean_loss": group.losses.mean if group.losses else None,
        "sd_loss": group.losses.sd if group.losses else None,
        "cap_bytes": cap,
        "against": comparison.against.mean if comparison else None,
        "against_names": list(against),
        "shift_bpb": comparison.shift if comparison else None,
        "threshold_bpb": comparison.threshold if comparison else None,
        "margin_bpb": comparison.margin if comparison else None,
    }
    tests: dict[Name, tuple[str, str]] = {"z": ("z", "p_z"), "t": ("t", "p_t"), "welch": ("welch_t", "p_welch")}
    for name, keys in tests.items():
        outcome = comparison.test(name, shifted=True) if comparison else None
        found |= dict(zip(keys, (outcome.statistic, outcome.p) if outcome else (None, None), strict=True))
        if name == "welch":
            found["welch_df"] = outcome.df if outcome else None
    found["tests"] = [outcome.to_dict() for outcome in comparison.tests] if comparison else []
    found["notes"] = [*(f"{path} holds no score" for path in group.skipped), *group.notes]
    found["unread"] = [
        {"log": log.name, "line": each.line, "text": each.text, "why": each.why}
        for log in group.logs
        for each in log.unread
    ]
    found["findings"] = [asdict(finding) for finding in findings]
    return found


def _run(run: "Run", cap: int) -> dict[str, Any]:
    return {
        "name": run.name,
        "seed": run.seed,
        "label": run.label,
        "bpb": run.bpb,
        "loss": run.loss,
        "code_bytes": run.code_bytes,
        "model_bytes": run.model_bytes,
        "total_bytes": run.total_bytes,
        "spare_bytes": None if run.total_bytes is None else cap - run.total_bytes,
        "train_seconds": run.train_seconds,
        "eval_seconds": run.eval_seconds,
        "refused": [
            {"label": each.metric.label, "bpb": each.metric.bpb, "reasons": list(each.reasons)} for each in run.refused
        ],
    }


def _print(
    group: "Group", findings: "Sequence[Finding]", comparison: "Comparison | None", against: tuple[str, ...], cap: int
) -> None:
    print_table(
        [
            [
                run.name,
                _shown(run.seed, ""),
                run.label,
                _shown(run.bpb, f".{run.decimals}f"),
                _shown(run.loss, f".{run.decimals}f"),
                _shown(run.code_bytes, ","),
                _shown(run.model_bytes, ","),
                _shown(run.total_bytes, ","),
                _shown(None if run.total_bytes is None else cap - run.total_bytes, "+,"),
                _shown(run.train_seconds, ".1f"),
                _shown(run.eval_seconds, ".1f"),
            ]
            for run in group.runs
        ],
        ("run", "seed", "score", "bpb", "loss", "code", "model", "total", "to cap", "train s", "eval s"),
    )
    click.echo()
    _print_mean(group, comparison, against)
    if comparison and comparison.tests:
        click.echo()
        _print_tests(comparison)
    click.echo()
    print_findings(findings, wrap=True)


def _print_mean(group: "Group", comparison: "Comparison | None", against: tuple[str, ...]) -> None:
    losses = group.losses
    rows = [["mean", f"{group.sample.mean:.8f}", _shown(losses.mean if losses else None, ".8f")]]
    rows += [["sample deviation", _shown(group.sample.sd, ".8f"), _shown(losses.sd if losses else None, ".8f")]]
    if comparison:
        ratio = comparison.bpb_per_nat
        for label, value in (
            (f"against {', '.join(against)}", comparison.against.mean),
            ("a record is better by", comparison.shift),
            ("so it is below", comparison.threshold),
            ("these are below that by", comparison.margin),
        ):
            in_nats = None if value is None or not ratio else value / ratio
            rows.append([label, _shown(value, ".8f"), _shown(in_nats, ".6f")])
    count = len(group.runs)
    print_table(rows, ("1 run" if count == 1 else f"{count} runs", "bits per byte", "nats per token"))


def _print_tests(comparison: "Comparison") -> None:
    from verify.claims.group_rules import TITLES, Z_NEEDS

    runs = len(comparison.sample.values)
    lenient = f", anti-conservative at n = {runs}" if runs < Z_NEEDS else ""
    print_table(
        [
            [
                TITLES[outcome.name] + (lenient if outcome.name == "z" else ""),
                "0.005 nats" if outcome.shifted else "none",
                f"{outcome.statistic:.3f}",
                _shown(outcome.df, ".3f"),
                f"{outcome.p:.3g}",
                "yes" if outcome.significant else "no",
            ]
            for outcome in comparison.tests
        ],
        ("one-sided test", "shift", "statistic", "df", "p", "p < 0.01"),
    )


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
