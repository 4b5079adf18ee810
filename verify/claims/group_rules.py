"""Judges of a group of runs against what its submission.json states: mean, deviation, seeds, significance."""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from codec.budget import PARAMETER_GOLF
from verify.claims.headline import headline, stated_bpb
from verify.claims.log_events import Metric
from verify.claims.log_reader import Log
from verify.claims.log_rules import check_log, log_judges
from verify.claims.recipe import differing_settings
from verify.claims.runs import STATED, Group
from verify.claims.significance import Comparison, Outcome
from verify.claims.submission_json import FEW_DECIMALS, Statement, agrees, rounds, slips
from verify.finding import Finding, Level, worst
from verify.judges import Judges

SPEAKS = re.compile(r"p.?val|\bp\s*[=<≈:]|\b[tz]\b\s*[=≈:]|[tz].?stat|[tz].?test|welch|signific", re.I)
DIGITS = re.compile(r"(?<![\w.])[-\u2212]?\d*\.\d{2,}(?:e-?\d+)?", re.I)
Z_NEEDS = 30  # runs; Student's p at z = -2.33 is then .0135 instead of .01, with 3 runs .073
EXTREME = {"log.bytes": "total", "log.budget": "eval_all"}  # the evidence by which logs of one level are ranked
LOGGED = 8  # decimals that logs print
TITLES = {"z": "one-sample z", "t": "one-sample Student t", "welch": "Welch t"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """Runs of one recipe, the cap in bytes, and how they compare with others, if they are to."""

    group: Group
    cap: int = PARAMETER_GOLF.total_bytes
    comparison: Comparison | None = None


group_judges = Judges[GroupFacts]()


def check_group(
    group: Group, cap: int = PARAMETER_GOLF.total_bytes, comparison: Comparison | None = None
) -> tuple[Finding, ...]:
    """Every finding about runs of one recipe: those of each log, joined rule by rule, then those of all together."""
    return group_judges.judge(GroupFacts(group=group, cap=cap, comparison=comparison))


@group_judges(*log_judges.rules)
def check_logs(facts: GroupFacts) -> list[Finding]:
    """What each log shows, joined rule by rule."""
    group, (statement, whose, level) = facts.group, _of_sizes(facts.group)
    each = [
        (log.name, finding)
        for log in group.logs
        for finding in check_log(log, statement, facts.cap, alone=len(group.logs) == 1)
    ]
    rules = dict.fromkeys(finding.rule for _, finding in each)
    joined = [_joined([(name, finding) for name, finding in each if finding.rule == rule]) for rule in rules]
    return [
        replace(finding, level=worst((finding.level, level)), message=f"{finding.message}; {whose}")
        if whose and finding.rule == "log.bytes"
        else finding
        for finding in joined
    ]


@group_judges("log.settings")
def check_settings(facts: GroupFacts) -> Finding | None:
    """The logs are of one recipe and one script, and each of another seed."""
    rule, group, logs = "log.settings", facts.group, facts.group.logs
    if len(logs) < 2:
        return None
    hashes = {log.code_sha256 for log in logs if log.code_sha256}
    code_sizes = {log.sizes.code for log in logs if log.sizes.code}
    keys = set.intersection(*(set(log.settings) for log in logs))
    differ = differing_settings(logs)
    windows = [_taken(group, log).notes for log in logs]  # of the scores that count, where their lines say
    differ_windows = [key for key in ("seq_len", "stride") if len({notes.get(key) for notes in windows}) > 1]
    seeds = [log.seed for log in logs if log.seed is not None]
    scores = [run.bpb for run in group.runs]
    problems = []
    if len(hashes) > 1 or len(code_sizes) > 1:
        problems.append("different scripts")
    if differ:
        problems.append(f"different settings: {', '.join(f'{key} ({_values(group, key)})' for key in differ[:5])}")
    if differ_windows:
        problems.append(f"scores by windows of different {' and '.join(differ_windows)}")
    kinds = dict.fromkeys(_taken(group, log).kind for log in logs)
    if len(kinds) > 1:
        problems.append(f"scores taken in different ways: {' / '.join(kinds)}")
    if len(set(seeds)) < len(seeds):
        problems.append("a seed twice")
    if len(set(scores)) < len(scores):
        problems.append("the same score twice")
    evidence = {"seeds": seeds, "differ": differ, "code_sha256": sorted(hashes), "code_bytes": sorted(code_sizes)}
    if problems:
        message = f"not {len(logs)} seeds of one recipe: {'; '.join(problems)}"
        return Finding(rule=rule, level="fail", message=message, evidence=evidence)
    if not keys:
        level: Level = "unknown" if any(log.settings for log in logs) else "not stated"
        return Finding(rule=rule, level=level, message="the logs share no settings to compare", evidence=evidence)
    message = f"{len(keys)} settings are the same in {len(logs)} logs, seeds {', '.join(map(str, sorted(seeds)))}"
    return Finding(rule=rule, level="pass", message=message, evidence=evidence)


@group_judges("claims.mean")
def check_mean(facts: GroupFacts) -> Finding | None:
    """val_bpb and val_bpb_std of submission.json are mean and sample deviation of the runs, and its seeds theirs."""
    rule, statement = "claims.mean", facts.group.statement
    if statement is None:
        return None
    if statement.bpb is None:
        return Finding(rule=rule, level="not stated", message=f"{STATED} states no val_bpb")
    group = _of_artifact(facts.group)
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
    if not group.logs:
        text = f"val_bpb {statement.bpb} is stated and no log shows it"
        return Finding(rule=rule, level="unknown", message=text, evidence=evidence)
    mean = f"mean of {count} runs" if count > 1 else "score"
    level: Level = "pass"
    message = f"val_bpb {statement.bpb} is the {mean}, {sample.mean:.8f}"
    if not agrees(statement.bpb, sample.mean, LOGGED):
        single = next((run for run in group.runs if agrees(statement.bpb, run.bpb)), None)
        text = f"{STATED} states val_bpb {statement.bpb}, the {mean} is {sample.mean:.8f}"
        if named > ran:
            text = f"val_bpb {statement.bpb} cannot be recomputed: there is no log of seeds {_list(named - ran)}"
            return Finding(rule=rule, level="unknown", message=text, evidence=evidence)
        level, message = "warn", f"{text}: one more or less in the last digit"
        if single and count > 1 and not statement.averaged:
            message = text + _whose(group, statement.bpb)
        elif not slips(statement.bpb, sample.mean, LOGGED):
            return Finding(rule=rule, level="fail", message=text + _whose(group, statement.bpb), evidence=evidence)
    elif abs(float(statement.bpb) - sample.mean) > FEW_DECIMALS:
        level, message = "warn", f"val_bpb {statement.bpb} is rounded from {sample.mean:.8f}, the {mean}"
    pairs = [
        (each.seed, each.bpb, run.bpb)
        for each in statement.seeds
        for run in group.runs
        if run.seed == each.seed and each.bpb is not None and _false(each.bpb, run.bpb)
    ]
    if pairs:
        near = all(agrees(claimed, shown, LOGGED) or slips(claimed, shown, LOGGED) for _, claimed, shown in pairs)
        level = worst((level, "warn" if near else "fail"))
        texts = [f"{claimed} for seed {seed}, whose log shows {shown:.8f}" for seed, claimed, shown in pairs]
        message += f"; it states {', '.join(texts)}"
    if statement.sd is not None and sample.sd is not None and not agrees(statement.sd, sample.sd, LOGGED):
        population = sample.sd * ((count - 1) / count) ** 0.5
        level = worst((level, "warn"))
        kind = "the population deviation" if agrees(statement.sd, population) else "not theirs"
        message += f"; val_bpb_std {statement.sd} is {kind}, the sample deviation is {sample.sd:.8f}"
    if named and ran and named != ran:
        level = worst((level, "warn"))
        message += f"; it names seeds {_list(named)}, the logs are of {_list(ran)}"
    return Finding(rule=rule, level=level, message=message, evidence=evidence)


@group_judges("claims.significance")
def check_significance(facts: GroupFacts) -> Finding | None:
    """Which test the stated numbers come from, and whether the others agree.

    Source: README of openai/parameter-golf: 0.005 nats at p < 0.01; the table of rules, claims.significance.
    """
    rule, bound = "claims.significance", PARAMETER_GOLF.record_p
    group, comparison = facts.group, facts.comparison
    if group.statement is None or comparison is None:
        return None
    statistics = group.statement.statistics
    used = [(f"{STATED}, {key}", value, _source(comparison, value)) for key, value in statistics.items()]
    used += [("README.md", value, _source(comparison, value)) for value in _spoken(group.readme)]
    matched = [(where, value, outcome) for where, value, outcome in used if outcome]
    evidence: dict[str, Any] = {
        "stated": [{"where": where, "number": float(value)} for where, value, _ in used],
        "tests": [outcome.to_dict() for outcome in comparison.tests],
    }
    level: Level
    if not matched:
        text = "states no statistic" if not statistics else "states statistics that none of the tests gives"
        level = "unknown" if used else "not stated"
        return Finding(rule=rule, level=level, message=f"{STATED} {text}", evidence=evidence)
    where, value, outcome = matched[0]
    evidence["used"] = {"test": outcome.name, "shifted": outcome.shifted}
    message = f"{where} {value} is the {describe(outcome)}"
    others = [
        other
        for other in comparison.tests
        if other.shifted == outcome.shifted and other.significant != outcome.significant
    ]
    level = "pass" if outcome.significant and not others else "warn"
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


def _joined(findings: list[tuple[str, Finding]]) -> Finding:
    """One finding for the logs of these names: the most serious, the largest of several alike, how many share it."""
    if len(findings) == 1:
        return findings[0][1]
    level = worst(finding.level for _, finding in findings)
    alike = [(name, finding) for name, finding in findings if finding.level == level]
    name, first = max(alike, key=lambda each: each[1].evidence.get(EXTREME.get(each[1].rule, "")) or 0)
    share = f"all {len(alike)} logs" if len(alike) == len(findings) else f"{len(alike)} of {len(findings)} logs"
    return Finding(
        rule=first.rule,
        level=level,
        message=f"{name}: {first.message} ({share})",
        evidence={"logs": [{"log": log, "level": each.level, **each.evidence} for log, each in findings]},
    )


def _of_sizes(group: Group) -> tuple[Statement | None, str, Level]:
    """(What is stated of each log's size, what is odd about it, how odd.)

    One size stated for several runs is one run's, so it is held against the logs together: it must be one of theirs, or
    no less than the largest.  A mean is held against their mean.  Where every seed that is named has its size logged, a
    number between them that is none of theirs, not even rounded, and not their mean is untrue.
    """
    statement = group.statement
    sizes = {log.name: log.sizes.total for log in group.logs if log.sizes.total is not None}
    named = set(statement.seed_numbers) if statement else set()
    if not statement or not sizes:
        return statement, "", "warn"
    missing, mean = len(named) > len(sizes), sum(sizes.values()) / len(sizes)
    if statement.total is None and statement.mean_total is not None:
        too_small = statement.mean_total < mean and not agrees(statement.mean_total, mean)
        if missing:
            return statement, f"{STATED} states a mean, and {len(sizes)} of {len(named)} logs are here", "warn"
        return replace(statement, total=statement.mean_total) if too_small else statement, "", "warn"
    per_seed = [each.total for each in statement.seeds]
    if statement.total is None or (per_seed and None not in per_seed) or max(len(group.logs), len(named)) < 2:
        return statement, "", "warn"
    stated, largest = statement.total, max(sizes.values())
    if stated >= largest or (stated < min(sizes.values()) and len(named) <= len(sizes)):
        return statement, "", "warn"
    whose = next((name for name, size in sizes.items() if agrees(stated, size)), None)
    rounded = next((name for name, size in sizes.items() if rounds(stated, size)), None)
    owner = f"the size of {whose}" if whose else f"the size of none of the {len(sizes)} logs here"
    if not whose and (rounded or agrees(stated, mean)):
        owner = f"the size of {rounded}, rounded" if rounded else "their mean"
    elif not whose and 1 < len(named) <= len(sizes) == len(group.logs):
        return (
            replace(statement, total=None),
            f"{STATED} states {stated:,}, {owner}; the largest has {largest:,}",
            "fail",
        )
    return replace(statement, total=None), f"{STATED} states {stated:,}, {owner}; the largest has {largest:,}", "warn"


def _taken(group: Group, log: Log) -> Metric:
    """The score of a log that its run is made of."""
    return headline(log, stated_bpb(log, group.statement, alone=len(group.logs) == 1)).metric


def _false(stated: Decimal, logged: float) -> bool:
    """Whether the score stated of a seed is not its log's: not to its own digits, or rounded so that it hides much."""
    return not agrees(stated, logged, LOGGED) or abs(float(stated) - logged) > FEW_DECIMALS


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
