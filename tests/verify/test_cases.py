"""Small inputs of every kind that real files have, and what each must give: ../shared/cases/README.md."""

import json
import math
from dataclasses import replace

import pytest

from verify.claims.group_rules import check_group
from verify.claims.headline import headline
from verify.claims.log_reader import read_log, read_logs
from verify.claims.runs import read_group

DECORATED = (  # file, what stands before each of its lines, how it is encoded
    ("logging_prefix.log", "2026-04-01 12:00:00,123 - INFO - ", "utf-8"),
    ("k8s.log", "2026-04-01T12:00:00.123456789Z stdout F ", "utf-8"),
    ("srun_label.log", "0: ", "utf-8"),
    ("epoch_prefix_over_cap.log", "1776143356.801 ", "utf-8"),
    ("utf16_seed42.log", "", "utf-16"),
)


@pytest.fixture(scope="session")
def logs(shared):
    return shared / "cases" / "logs"


def judged(pgolf, path):
    """Level and message of each finding of `pgolf compare`."""
    done = pgolf("compare", path, "--json")
    found = json.loads(done.stdout)
    return {each["rule"]: each for each in found["findings"]}


@pytest.mark.parametrize("name", ["paren_sliding.log", "percent.log"])
def test_a_tail_in_brackets_or_bars_is_the_score(logs, name):
    result = headline(read_log(logs / name))
    assert (result.metric.kind, result.metric.bpb, result.metric.loss) == ("sliding", 1.1901, 2.01)
    assert result.metric.seconds == pytest.approx(428.712)
    assert result.unread == ()


@pytest.mark.parametrize("name", ["paren_sliding.log", "percent.log"])
def test_their_loss_and_score_are_of_no_one_text(pgolf, logs, name):
    """2.0100 and 1.1901 to their last digits imply 2.43645 to 2.43678 bytes per token, the exact line before 2.43597.

    The figures are invented: at 2.43597 a score of 1.1901 has a loss of 2.0095, so that the finding is true.
    """
    found = judged(pgolf, logs / name)["log.implied_bytes"]
    assert (found["level"], found["evidence"]["line"]) == ("fail", 22)
    smallest = (2.01 - 5e-5) / ((1.1901 + 5e-5) * math.log(2))
    assert smallest > 2.06836119 / (1.225 * math.log(2)) * (1 + 1e-4)


def test_a_killed_run_before_another_has_no_score(logs):
    killed, full = read_logs(logs / "two_runs_killed_then_full.log")
    assert (killed.seed, killed.killed) == (1337, True)
    assert (full.seed, full.killed, headline(full).metric.bpb) == (42, False, 1.225)


def test_two_runs_keep_their_facts(logs):
    found = read_logs(logs / "two_full_runs.log")
    text = (logs / "two_full_runs.log").read_text()
    assert [log.seed for log in found] == [1337, 42]
    assert [headline(log).metric.bpb for log in found] == [1.2244, 1.19]
    assert [log.sizes.total for log in found] == [
        int(line.rpartition(": ")[2].split()[0]) for line in text.splitlines() if "submission size int8" in line
    ]
    assert len({log.train_seconds for log in found}) == len({log.steps for log in found})


@pytest.mark.parametrize(("name", "prefix", "encoding"), DECORATED)
def test_prefixes_change_no_fact(logs, tmp_path, name, prefix, encoding):
    lines = (logs / name).read_bytes().decode(encoding).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    (tmp_path / name).write_text("".join(f"{line.removeprefix(prefix)}\n" for line in lines))
    plain, other = read_log(tmp_path / name), read_log(logs / name)
    assert plain.metrics
    assert plain.seed == 42
    assert replace(other, path=plain.path) == plain


def test_sizes_behind_a_prefix_are_over_the_cap(pgolf, logs):
    found = judged(pgolf, logs / "epoch_prefix_over_cap.log")["log.bytes"]
    assert found["level"] == "fail"
    assert "450,000 over the cap" in found["message"]


def test_a_last_score_that_is_not_finite_fails(pgolf, logs):
    assert judged(pgolf, logs / "nan_sliding.log")["log.headline"]["level"] == "fail"


def test_a_number_that_the_end_of_the_file_cuts_is_no_score(logs):
    result = headline(read_log(logs / "killed_midnumber.log"))
    assert result.metric.bpb == 1.225
    assert [each.why for each in result.unread] == ["the file ends inside it"]


def test_a_stride_in_the_name_is_no_seed(logs):
    assert read_log(logs / "train_s64_seed42.log").seed == 42


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        ("list_results", "fail", "1.2000 for seed 1337, whose log shows 1.22"),
        ("per_seed_mismatch", "fail", "1.2000 for seed 1337, whose log shows 1.22"),
        ("plusminus", "fail", "states val_bpb 1.2100, the mean of 3 runs is 1.22"),
        ("mean_key", "warn", "val_bpb 1.2 is rounded from 1.22"),
    ],
)
def test_claims_are_read_and_held_against_the_logs(shared, name, level, words):
    findings = {each.rule: each for each in check_group(read_group([shared / "cases" / "submissions" / name]))}
    assert findings["claims.mean"].level == level
    assert words in findings["claims.mean"].message
