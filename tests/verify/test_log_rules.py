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
    ("change", "level"),
    [
        ({"val_bpb": 1.07865582, "val_bpb_std": None}, "warn"),
        ({"val_bpb": 1.07865582, "val_bpb_std": None, "seeds": [42, 314, 999]}, "fail"),
        ({"val_bpb": 1.07865582}, "fail"),  # val_bpb_std says that it is a mean
        ({"val_bpb": None, "val_bpb_std": None, "mean_val_bpb": 1.07865582}, "fail"),
        ({"val_bpb": "1.07865582 +- 0.0001", "val_bpb_std": None}, "fail"),
        ({"val_bpb": 1.0771}, "fail"),
    ],
)
def test_the_score_of_one_run_is_no_mean(of_folder, change, level):
    assert of_folder({"seeds": None, "seed_results": None, **change})["claims.mean"] == level


@pytest.mark.parametrize(
    ("stated", "seeds", "level"),
    [
        (15_991_203, True, "warn"),
        (15_995_000, True, "fail"),
        (15_995_000, False, "warn"),  # without named seeds it may be of another run
        (15_994_000, True, "warn"),  # 15,994,170 rounded
        (15_993_825, True, "warn"),  # their mean
        (15_996_103, True, "pass"),
        (15_900_000, True, "fail"),
    ],
)
def test_one_size_for_three_runs(of_folder, stated, seeds, level):
    """Theirs are 15,991,203, 15,994,170 and 15,996,103 bytes."""
    change = {"seed_results": None, "artifact_bytes_mean": None, "bytes_total": stated}
    assert of_folder({**change, "seeds": [42, 314, 999] if seeds else None})["log.bytes"] == level


def test_scores_taken_in_different_ways_are_of_no_one_recipe(tmp_path):
    for seed in (42, 314):
        text = log_1716(seed)
        (tmp_path / f"a_seed{seed}.log").write_text(text.partition("quantized_ttt")[0] if seed == 42 else text)
    finding = next(each for each in check_group(read_group([tmp_path])) if each.rule == "log.settings")
    assert (finding.level, "different ways: sliding / ttt" in finding.message) == ("fail", True)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("quantized val_loss:2.01 val_bpb:1.21", "pass"),  # 1.2062 and 1.2150 would fit as well
        ("quantized val_loss:2.0 val_bpb:1.2089", "pass"),  # a loss of one decimal
        ("quantized val_loss:2.0100 val_bpb:1.2113", "fail"),  # 6 units of the last digit
        ("quantized val_loss:2.01000000 val_bpb:1.20960000", "fail"),
    ],
)
def test_a_line_fits_the_others_to_the_digits_printed(tmp_path, line, level):
    """The others say loss = 1.66190 bpb, to 8 decimals and to 2."""
    known = "".join(f"step:{i}/9 val_loss:{x * 1.6619:.8f} val_bpb:{x:.8f}\n" for i, x in enumerate((3.4, 1.5, 1.4)))
    coarse = "".join(f"step:{i}/9 val_loss:{x * 1.6619:.2f} val_bpb:{x:.2f}\n" for i, x in enumerate((1.31, 1.27), 3))
    (tmp_path / "a.log").write_text(known + coarse + line + "\n")
    found = next(each for each in check_log(read_log(tmp_path / "a.log")) if each.rule == "log.implied_bytes")
    assert ("the other lines" in found.message) == (level == "fail"), found.message


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
