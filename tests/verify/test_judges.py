"""Rules are functions of facts: each of the table is judged by somebody, and what a level means."""

import ast
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from codec.errors import InputError, UsageError
from tests.verify.measured import ADAPTING, FACTS, RESCORED, SCORE, STRICT, claiming, hit, moved
from tests.verify.records import write_1716
from verify import Finding, folder_rules, judge, run_rules
from verify.audit.gallery import EXHIBITS, audit_all
from verify.claims import group_rules, log_rules
from verify.claims.group_rules import GroupFacts, check_group
from verify.claims.runs import read_group
from verify.claims.significance import SeedScores, compare
from verify.facts import LogsFacts
from verify.folder_rules import folder_judges
from verify.foresight import findings as foresight_findings
from verify.foresight.probe import Foresight
from verify.judges import Judges
from verify.memorisation import Memorised
from verify.rules import RULES
from verify.run_rules import run_judges
from verify.verdict import Verdict

TRIAGE = [rule for rule in RULES if rule.startswith("triage.")]


def levels(facts):
    return {finding.rule: finding.level for finding in judge(facts)}


def finding(facts, rule):
    return next(each for each in judge(facts) if each.rule == rule)


def test_findings_come_in_order():
    """Of the folder, then of its runs; what an adapted run adds comes after."""
    caught = replace(RESCORED, attempts=("train_gpt.py line 7: used the network",))
    facts = replace(FACTS, scan=replace(FACTS.scan, hits=(hit("triage.reads", 3), hit("triage.blob", 5))))
    assert [each.rule for each in judge(replace(facts, adapted=(RESCORED, caught), floats=SCORE))] == [
        "bytes.cap",
        "folder.contents",
        "claims.bytes",
        "claims.hashes",
        "log.headline",
        "artifact.decodes",
        "triage.reads",
        "triage.blob",
        "artifact.tokenizer",
        "text.bytes",
        "reload.protocol",
        "sandbox.missing",
        "sandbox.attempts",
        "reload.state",
        "score.coverage",
        "score.prefix",
        "claims.score",
        "time.evaluation",
        "sandbox.attempts",
        "score.penalty",
    ]


def test_every_rule_of_the_table_is_judged(tmp_path):
    """By one of these facts at least, and none that is not registered for it."""
    group = read_group([write_1716(tmp_path / "1716")])
    comparison = compare(group.sample, SeedScores(values=(1.081,)), group.bpb_per_nat)
    logs = LogsFacts(group=GroupFacts(group=group, comparison=comparison))
    scanned = replace(FACTS.scan, hits=tuple(hit(rule) for rule in TRIAGE if rule != "triage.scan"))
    foreign = replace(FACTS.artifact, foreign="zstd data")
    stating = replace(FACTS.folder, environment={"A": "1"}, stated_in="README.md")
    more = replace(FACTS, scan=scanned, artifact=foreign, logs=logs, folder=stating)
    memorised = Memorised(gap=None, longest=3, allowed=48, compared=False, runs=(), beyond=0)
    found = {
        each.rule
        for facts in (FACTS, ADAPTING, replace(more, floats=SCORE, strict=STRICT, memorised=memorised))
        for each in judge(facts)
    }
    assert found == {*folder_judges.rules, *run_judges.rules}
    (audit,) = audit_all([next(iter(EXHIBITS.values()))]).values()
    audited = {each.rule for each in audit.findings}
    assert found | audited == set(RULES)
    assert not found & audited


def test_judges_import_nothing_that_measures():
    """They could not hash, read or start anything; a PurePosixPath opens no file."""
    allowed = {"collections", "dataclasses", "decimal", "math", "pathlib", "re", "statistics", "typing"}
    for module in (folder_rules, run_rules, foresight_findings, log_rules, group_rules):
        tree = ast.parse(Path(module.__file__).read_text())
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in nodes for alias in node.names}
        roots = {getattr(node, "module", "").partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
        roots |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert roots <= allowed | {"codec", "verify"}, module
        assert not names & {"Path", "reload", "running", "read_group", "read_log", "read_statement", "Submission"}
        calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id")}
        assert "open" not in calls


def test_a_claim_that_nobody_made_is_not_stated():
    assert {rule for rule, level in levels(FACTS).items() if level != "pass"} == {
        "claims.bytes",
        "claims.hashes",
        "claims.score",
        "log.headline",
    }
    verdict = Verdict(findings=judge(FACTS), bytes=FACTS.count, scores=(SCORE,))
    assert (verdict.verdict, verdict.undecided, verdict.warned, verdict.failed) == ("pass", (), (), ())
    assert verdict.not_stated == ("claims.bytes", "claims.hashes", "log.headline", "claims.score")
    assert len(verdict.checked) == 13
    assert json.loads(json.dumps(verdict.to_dict()))["not_stated"] == list(verdict.not_stated)


def test_a_rule_is_listed_once_by_its_most_serious_finding():
    caught = replace(RESCORED, attempts=("opened a socket",), missing=("the network",))
    facts = replace(FACTS, adapted=(caught,), packed=replace(RESCORED, missing=("memory",)))
    verdict = Verdict(findings=judge(facts), bytes=FACTS.count, scores=(SCORE,))
    assert verdict.failed == ("sandbox.attempts",)
    assert verdict.undecided == ("sandbox.missing",)
    assert "sandbox.attempts" not in verdict.checked
    listed = (*verdict.checked, *verdict.not_stated, *verdict.undecided, *verdict.warned, *verdict.failed)
    assert sorted(listed) == sorted(levels(facts))


QUIET, LOUD = {"exact": False, "risen": 230, "fallen": 230}, {"exact": False, "risen": 300, "fallen": 160}
STATED = "a leak of >= 0.05 nats in >= 0.01 of the positions would have been seen with probability 0.99"


@pytest.mark.parametrize(
    ("probe", "level", "words"),
    [
        (FACTS.prefix, "pass", f"460 cuts, 5.0% of the forwards: equal up to each cut; {STATED}"),
        (Foresight(), "unknown", "no scored window was looked at again (--proof 0)"),
        (moved(3.0, 3.0005), "fail", "the score at position 20 went from 3.000000 to 3.000500"),
        (moved(3.0, 3.5), "fail", "in the window of tokens 8 to 23; 2 of 610 rows"),
        (moved(3.0, 3.0005, noise=0.0004), "fail", "up to 0.0004 nats off, which on a CPU is the script's doing"),
        (moved(3.0, 3.0005, noise=0.0005, moved=0), "fail", "to 3.000500 when the same was asked again"),
        (
            moved(3.0, 3.0005, noise=0.004, **QUIET),
            "unknown",
            "230 of 460 scores rose at their cuts, leaning +0.0; a leak",
        ),
        (moved(3.0, 3.0005, noise=0.0004, **QUIET), "pass", "with probability 1 in 1, 1 in 0.1, 1 in 0.02 of the pos"),
        (moved(3.0, 3.0005, noise=0.0004, **LOUD), "fail", "which noise does with probability 3e-11"),
        (moved(3.0, 3.5, noise=0.0004, **QUIET), "fail", "; asked the same again"),
        (moved(3.0, float("nan"), noise=float("inf")), "fail", "up to inf nats off"),
    ],
)
def test_what_moved_behind_a_cut(probe, level, words):
    found = finding(replace(FACTS, prefix=probe), "score.prefix")
    assert words in found.message
    assert found.level == level
    json.dumps(found.evidence, allow_nan=False)


@pytest.mark.parametrize(
    ("strict", "level", "words"),
    [
        (STRICT, "pass", "200 targets from their prefixes alone: +0 nats per target"),
        (replace(STRICT, rounded=3), "pass", "3 differ by the kernels of another shape"),
        (replace(STRICT, refusal="need 16 tokens"), "pass", "for shorter ones it refuses (need 16 tokens)"),
        (replace(STRICT, mean=0.1, worst=moved(3.0, 3.5).worst), "fail", "3 were scored otherwise, the score at"),
    ],
)
def test_targets_from_their_prefixes(strict, level, words):
    found = finding(replace(FACTS, strict=strict), "score.strict")
    assert words in found.message
    assert found.level == level
    json.dumps(found.evidence, allow_nan=False)


def test_other_states_and_counts():
    other = {"table": {**FACTS.artifact.state["table"], "sha256": "6" * 64}}
    assert finding(replace(FACTS, packed=replace(RESCORED, state=other)), "reload.state").level == "fail"
    assert finding(replace(FACTS, packed=replace(RESCORED, state={})), "reload.state").level == "unknown"
    assert levels(replace(FACTS, adapted=(replace(RESCORED, state=other),)))["reload.state"] == "fail"
    short = replace(RESCORED, score=replace(SCORE, tokens=178))
    assert finding(replace(FACTS, packed=short), "score.coverage").level == "fail"
    slow = replace(RESCORED, score=replace(SCORE, seconds=601.0))
    assert finding(replace(FACTS, packed=slow), "time.evaluation").level == "unknown"
    prepared = replace(RESCORED, loading=601.0)  # what `load` computes is evaluation, too
    assert finding(replace(FACTS, packed=prepared), "time.evaluation").level == "unknown"
    assert finding(FACTS, "time.evaluation").level == "pass"


def test_how_it_was_loaded():
    noted = replace(FACTS, packed=replace(RESCORED, notes=("GPT built from 7 of 9",)))
    assert "no settings" in finding(noted, "reload.protocol").message
    stating = replace(noted, folder=replace(FACTS.folder, environment={"LAYERS": "9"}, stated_in="README.md"))
    assert finding(stating, "reload.protocol").message.endswith("environment: LAYERS=9, as README.md states")
    own = replace(stating, settings=replace(FACTS.settings, environment={"LAYERS": "8"}))
    assert finding(own, "reload.protocol").message.endswith("environment: LAYERS=8")


def test_logs_that_cannot_be_read_matter_when_a_score_is_claimed():
    facts = replace(FACTS, logs=LogsFacts(group=None, error="holds no score"))
    assert finding(facts, "log.headline").level == "not stated"
    assert finding(claiming({"val_bpb": 1.1}, facts), "log.headline").level == "unknown"


def test_verify_and_compare_judge_logs_alike(tmp_path):
    group = read_group([write_1716(tmp_path / "1716")])
    ours = [
        each for each in judge(replace(FACTS, logs=LogsFacts(group=GroupFacts(group=group)))) if "log." in each.rule
    ]
    assert [asdict(each) for each in ours] == [asdict(each) for each in check_group(group) if "log." in each.rule]
    assert len(ours) == 5


def test_a_judge_gives_one_finding_or_several_or_none():
    judges = Judges[int]()
    warned = Finding(rule="bytes.cap", level="warn", message="odd")

    @judges("bytes.cap")
    def check_odd(number):
        return warned if number % 2 else None

    @judges("bytes.cap", "log.bytes")
    def check_each(number):
        return [warned] * number

    assert judges.rules == ("bytes.cap", "log.bytes")
    assert judges.judge(0) == ()
    assert judges.judge(3) == (warned,) * 4
    with pytest.raises(UsageError, match=r"no rule `bytes\.cat`"):
        judges("bytes.cat")


def test_a_judge_that_fails_is_named_in_one_sentence():
    judges = Judges[int]()

    @judges("bytes.cap")
    def check_cap(size):
        return size.nothing

    with pytest.raises(InputError, match=r"test_judges\.py, line \d+: the judge of bytes\.cap raised AttributeError: "):
        judges.judge(7)


def test_a_finding_has_one_of_the_levels():
    with pytest.raises(UsageError, match="`bad` is no level of a finding; levels: pass, fail"):
        Finding(rule="bytes.cap", level="bad", message="x")
