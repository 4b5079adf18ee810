"""What a group of runs adds up to, against what its submission.json states: mean, deviation, seeds, significance."""

import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

from codec.budget import PARAMETER_GOLF
from verify.claims.headline import headline
from verify.claims.log_rules import check_log
from verify.claims.runs import STATED, Group
from verify.claims.significance import Comparison, Outcome
from verify.claims.submission_json import Statement, agrees
from verify.finding import Finding, Level, worst

PLACES = re.compile(
    r"(^|_)(seed|rank)$|run_id|logfile|_(dir|path|files)$|^rank|tokenizer_path|pattern"
)  # not the recipe
SPEAKS = re.compile(r"p.?val|\bp\s*[=<≈:]|\b[tz]\b\s*[=≈:]|[tz].?stat|[tz].?test|welch|signific", re.I)
DIGITS = re.compile(r"(?<![\w.])[-\u2212]?\d*\.\d{2,}(?:e-?\d+)?", re.I)
Z_NEEDS = 30  # runs; Student's p at z = -2.33 is then .0135 instead of .01, with 3 runs .073
EXTREME = {"log.bytes": "total", "log.budget": "eval_all"}  # the evidence by which logs of one level are ranked
LOGGED = 8  # decimals that logs print
TITLES = {"z": "one-sample z", "t": "one-sample Student t", "welch": "Welch t"}


def check_group(
    group: Group, cap: int = PARAMETER_GOLF.total_bytes, comparison: Comparison | None = None
) -> list[Finding]:
    """Every finding about runs of one recipe: those of each log, joined rule by rule, then those of all together."""
    statement = _of_sizes(group)
    each = [check_log(log, statement, cap, alone=len(group.logs) == 1) for log in group.logs]
    findings = [_joined(group, list(column)) for column in zip(*each, strict=True)]
    if len(group.logs) > 1:
        findings.append(check_settings(group))
    if group.statement:
        findings.append(check_mean(group))
        if comparison:
            findings.append(check_significance(group, comparison))
    return findings


def check_settings(group: Group) -> Finding:
    """The logs are of one recipe and one script, and each of another seed."""
    rule, logs = "log.settings", group.logs
    hashes = {log.code_sha256 for log in logs if log.code_sha256}
    code_sizes = {log.sizes.code for log in logs if log.sizes.code}
    keys = set.intersection(*(set(log.settings) for log in logs))
    differ = sorted(key for key in keys if not PLACES.search(key) and len({log.settings[key] for log in logs}) > 1)
    seeds = [log.seed for log in logs if log.seed is not None]
    scores = [run.bpb for run in group.runs]
    problems = []
    if len(hashes) > 1 or len(code_sizes) > 1:
        problems.append("different scripts")
    if differ:
        problems.append(f"different settings: {', '.join(f'{key} ({_values(group, key)})' for key in differ[:5])}")
    if len(set(seeds)) < len(seeds):
        problems.append("a seed twice")
    if len(set(scores)) < len(scores):
        problems.append("the same score twice")
    evidence = {"seeds": seeds, "differ": differ, "code_sha256": sorted(hashes), "code_bytes": sorted(code_sizes)}
    if problems:
        message = f"not {len(logs)} seeds of one recipe: {'; '.join(problems)}"
        return Finding(rule=rule, level="fail", message=message, evidence=evidence)
    if not keys:
        return Finding(rule=rule, level="unknown", message="the logs share no settings to compare", evidence=evidence)
    message = f"{len(keys)} settings are the same in {len(logs)} logs, seeds {', '.join(map(str, sorted(seeds)))}"
    return Finding(rule=rule, level="pass", message=message, evidence=evidence)


def check_mean(group: Group) -> Finding:
    """val_bpb and val_bpb_std of submission.json are mean and sample deviation of the runs, and its seeds theirs."""
    rule, statement = "claims.mean", group.statement
    if statement is None or statement.bpb is None:
        return Finding(rule=rule, level="unknown", message=f"{STATED} states no val_bpb")
    group = _of_artifact(group)
    if not group.runs:
        return Finding(rule=rule, level="unknown", message="no log scores the packed model, which val_bpb is about")
    sample = group.sample
    evidence = {
        "stated": float(statement.bpb),
        "stated_sd": None if statement.sd is None else float(statement.sd),
        "mean": sample.mean,
        "sd": sample.sd,
        "seeds": [run.seed for run in group.runs],
    }
    count = len(group.runs)
    named, ran = set(statement.seed_numbers), {run.seed for run in group.runs if run.seed is not None}
    if named > ran and not agrees(statement.bpb, sample.mean, LOGGED):
        text = f"val_bpb {statement.bpb} cannot be recomputed: there is no log of seeds {_list(named - ran)}"
        return Finding(rule=rule, level="unknown", message=text, evidence=evidence)
    mean = f"mean of {count} runs" if count > 1 else "score"
    if not agrees(statement.bpb, sample.mean, LOGGED):
        text = f"{STATED} states val_bpb {statement.bpb}, the {mean} is {sample.mean:.8f}"
        return Finding(rule=rule, level="fail", message=text + _whose(group, statement.bpb), evidence=evidence)
    level: Level = "pass"
    message = f"val_bpb {statement.bpb} is the {mean}, {sample.mean:.8f}"
    if statement.sd is not None and sample.sd is not None and not agrees(statement.sd, sample.sd, LOGGED):
        population = sample.sd * ((count - 1) / count) ** 0.5
        level = "warn"
        kind = "the population deviation" if agrees(statement.sd, population) else "not theirs"
        message += f"; val_bpb_std {statement.sd} is {kind}, the sample deviation is {sample.sd:.8f}"
    if named and ran and named != ran:
        level = "warn"
        message += f"; it names seeds {_list(named)}, the logs are of {_list(ran)}"
    return Finding(rule=rule, level=level, message=message, evidence=evidence)


def check_significance(group: Group, comparison: Comparison) -> Finding:
    """Which test the stated numbers come from, and whether the others agree.

    Source: README of openai/parameter-golf: 0.005 nats at p < 0.01; docs/rules.md, claims.significance.
    """
    rule, bound = "claims.significance", PARAMETER_GOLF.record_p
    statistics = group.statement.statistics if group.statement else {}
    used = [(f"{STATED}, {key}", value, _source(comparison, value)) for key, value in statistics.items()]
    used += [("README.md", value, _source(comparison, value)) for value in _spoken(group.readme)]
    matched = [(where, value, outcome) for where, value, outcome in used if outcome]
    evidence: dict[str, Any] = {
        "stated": [{"where": where, "number": float(value)} for where, value, _ in used],
        "tests": [outcome.to_dict() for outcome in comparison.tests],
    }
    if not matched:
        text = "states no statistic" if not statistics else "states statistics that none of the tests gives"
        return Finding(rule=rule, level="unknown", message=f"{STATED} {text}", evidence=evidence)
    where, value, outcome = matched[0]
    evidence["used"] = {"test": outcome.name, "shifted": outcome.shifted}
    message = f"{where} {value} is the {describe(outcome)}"
    others = [
        other
        for other in comparison.tests
        if other.shifted == outcome.shifted and other.significant != outcome.significant
    ]
    level: Level = "pass" if outcome.significant and not others else "warn"
    if others:
        verdicts = ", ".join(f"{TITLES[other.name]} gives p = {other.p:.4g}" for other in others)
        message += f"; {verdicts}: {'not ' if outcome.significant else ''}below {bound}"
    if outcome.name == "z" and len(group.runs) < Z_NEEDS:
        level = "warn"
        message += f"; z takes the spread of {len(group.runs)} runs as exact, so its p is too small"
    if not outcome.shifted:
        level = "warn"
        message += f"; it leaves out the {PARAMETER_GOLF.record_nats} nats"
    return Finding(rule=rule, level=level, message=message, evidence=evidence)


def describe(outcome: Outcome) -> str:
    """A test in words, for tables and findings."""
    return f"{TITLES[outcome.name]} test {'with' if outcome.shifted else 'without'} the shift"


def _source(comparison: Comparison, value: Decimal) -> Outcome | None:
    """The test that gives this number as its statistic or as its p, one- or two-sided."""
    if not value:
        return None
    return next(
        (
            outcome
            for outcome in comparison.tests
            if any(
                agrees(value, number) for number in (outcome.statistic, -outcome.statistic, outcome.p, 2 * outcome.p)
            )
        ),
        None,
    )


def _spoken(readme: str) -> list[Decimal]:
    """Numbers of three digits or more, from lines that speak of a test."""
    found = [text for line in readme.splitlines() if SPEAKS.search(line) for text in DIGITS.findall(line)]
    numbers = [Decimal(text.replace("\u2212", "-")) for text in found]
    return [value for value in numbers if len(value.as_tuple().digits) >= 3]


def _joined(group: Group, findings: list[Finding]) -> Finding:
    """One finding for all logs: the most serious, the largest of several alike, and how many share it."""
    if len(findings) == 1:
        return findings[0]
    level = worst(finding.level for finding in findings)
    names = [log.name for log in group.logs]
    first = max(
        (index for index, finding in enumerate(findings) if finding.level == level),
        key=lambda index: (findings[index].evidence.get(EXTREME.get(findings[index].rule, "")) or 0, -index),
    )
    alike = sum(finding.level == level for finding in findings)
    share = f"all {alike} logs" if alike == len(findings) else f"{alike} of {len(findings)} logs"
    return Finding(
        rule=findings[first].rule,
        level=level,
        message=f"{names[first]}: {findings[first].message} ({share})",
        evidence={
            "logs": [
                {"log": name, "level": each.level, **each.evidence} for name, each in zip(names, findings, strict=True)
            ]
        },
    )


def _of_sizes(group: Group) -> Statement | None:
    """What is stated of each log's size: a mean of sizes only when it is too small, as single ones may be larger."""
    statement, totals = group.statement, [log.sizes.total for log in group.logs if log.sizes.total is not None]
    if not statement or statement.total is not None or statement.mean_total is None or not totals:
        return statement
    mean = sum(totals) / len(totals)
    too_small = statement.mean_total < mean and not agrees(statement.mean_total, mean)
    return replace(statement, total=statement.mean_total) if too_small else statement


def _of_artifact(group: Group) -> Group:
    """Without the runs whose logs score float weights only; a log as `pgolf train` writes it does."""
    if not group.logs:
        return group
    pairs = [(run, log) for run, log in zip(group.runs, group.logs, strict=True) if headline(log).of_artifact]
    return replace(group, runs=tuple(run for run, _ in pairs), logs=tuple(log for _, log in pairs))


def _whose(group: Group, stated: Decimal) -> str:
    """Which other scores the stated mean is the mean of, or whose single score it is."""
    single = next((run for run in group.runs if agrees(stated, run.bpb)), None)
    if single and len(group.runs) > 1:
        return f"; it is the score of {single.name} alone"
    refused = [run.refused[0].metric for run in group.runs if run.refused]
    if len(refused) == len(group.runs) and agrees(stated, sum(each.bpb for each in refused) / len(refused)):
        return f"; it is the mean of the refused `{refused[0].label}`"
    return ""


def _values(group: Group, key: str) -> str:
    return " / ".join(dict.fromkeys(log.settings[key] for log in group.logs))


def _list(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
