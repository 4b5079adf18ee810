"""Where a claim or a log is only warned about, and the next thing to it that fails."""

import json
import math

import pytest

from tests.verify.records import LOG_339, log_1716, write_1716
from verify.claims.group_rules import check_group
from verify.claims.log_reader import read_log
from verify.claims.log_rules import check_log
from verify.claims.runs import read_group


def levels(findings):
    return {finding.rule: finding.level for finding in findings}


@pytest.fixture
def of_folder(tmp_path):
    def check(change):
        path = write_1716(tmp_path / "r") / "submission.json"
        stated = {**json.loads(path.read_text()), **change}
        path.write_text(json.dumps({key: value for key, value in stated.items() if value is not None}))
        return levels(check_group(read_group([path.parent])))

    return check


@pytest.mark.parametrize(
    ("bpb", "seeds", "level"),
    [(1.07865582, None, "warn"), (1.07865582, [42, 314, 999], "fail"), (1.0771, None, "fail")],
)
def test_the_score_of_one_run_is_no_mean(of_folder, bpb, seeds, level):
    assert of_folder({"val_bpb": bpb, "seeds": seeds, "seed_results": None})["claims.mean"] == level


@pytest.mark.parametrize(
    ("stated", "level"), [(15_991_203, "warn"), (15_995_000, "warn"), (15_996_103, "pass"), (15_900_000, "fail")]
)
def test_one_size_for_three_runs(of_folder, stated, level):
    """Theirs are 15,991,203, 15,994,170 and 15,996,103 bytes."""
    change = {"seed_results": None, "artifact_bytes_mean": None, "bytes_total": stated}
    assert of_folder(change)["log.bytes"] == level


@pytest.mark.parametrize(("bpb", "level"), [(1.07886574, "pass"), (1.08014601, "warn"), (1.0791, "fail")])
def test_an_earlier_legal_score_is_stated(tmp_path, bpb, level):
    (tmp_path / "a_seed42.log").write_text(log_1716(42))
    (tmp_path / "submission.json").write_text(json.dumps({"val_bpb": bpb}))
    assert levels(check_group(read_group([tmp_path])))["log.headline"] == level


@pytest.mark.parametrize(("track", "level"), [("10min_16mb", "fail"), ("non-record-unlimited", "warn")])
def test_a_track_without_a_limit_of_time(tmp_path, track, level):
    (tmp_path / "a_seed42.log").write_text(log_1716(42).replace("588110ms", "900000ms"))
    (tmp_path / "submission.json").write_text(json.dumps({"val_bpb": 1.07886574, "track": track}))
    assert levels(check_group(read_group([tmp_path])))["log.budget"] == level


@pytest.mark.parametrize(
    ("tokens", "size", "level"),
    [
        (62_021_632, 151_080_363, "pass"),
        (61_991_632, 151_007_285, "pass"),  # 30,000 tokens of the tail left out: less than a window
        (61_991_632, 146_000_000, "fail"),  # and bytes counted wrong
        (63_779_840, 155_769_746, "warn"),  # the challenge's text of its first days
        (9_662_464, 32_756_252, "fail"),
    ],
)
def test_texts_by_their_bytes(tmp_path, tokens, size, level):
    loss = 1.2 * math.log(2) * size / tokens
    (tmp_path / "a.log").write_text(f"val_tokens: {tokens}\nquantized val_loss:{loss:.8f} val_bpb:1.20000000\n")
    assert levels(check_log(read_log(tmp_path / "a.log")))["log.implied_bytes"] == level


def test_a_line_not_understood_before_the_last_score_does_not_matter(tmp_path):
    (tmp_path / "a.log").write_text(f"target val_bpb: 1.19\n{LOG_339}")
    log = read_log(tmp_path / "a.log")
    assert len(log.unread) == 1
    assert levels(check_log(log))["log.headline"] == "pass"
