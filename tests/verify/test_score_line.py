"""A line that names bits per byte is read, or it is listed; nothing between."""

import json

import pytest

from tests.verify.records import FIGURES_1716, LOG_339, log_1716, write_1716
from verify.claims.group_rules import check_group
from verify.claims.log_reader import read_log
from verify.claims.log_rules import check_log
from verify.claims.runs import read_group
from verify.claims.score_line import names_score, read_score
from verify.claims.submission_json import read_statement


def levels(findings):
    return {finding.rule: finding.level for finding in findings}


@pytest.mark.parametrize(
    ("line", "label", "kind", "bpb", "loss"),
    [
        (
            "final_sliding val_loss:2.01 val_bpb:1.19 (stride=32, T=0.95) time:9ms",
            "final_sliding",
            "sliding",
            1.19,
            2.01,
        ),
        ("quantized_bpb=1.2345", "quantized", "roundtrip", 1.2345, None),
        ("Quantized BPB (int6): 1.2345", "Quantized", "roundtrip", 1.2345, None),
        ("sliding val_loss:2.0 sliding val_bpb:1.19", "sliding", "sliding", 1.19, 2.0),
        ("quantized | val_loss: 2.0 | val_bpb: 1.21", "quantized", "roundtrip", 1.21, 2.0),
        ("final_sliding val_bpb:1.19 \u2713", "final_sliding", "sliding", 1.19, None),
        ("    TTT bpb: 1.198562", "TTT", "ttt", 1.198562, None),
        ("quantized val_loss:2.0 val_bpb:1.21 done in 3 passes", "quantized", "roundtrip", 1.21, 2.0),
        ("Final score after TTT is 1.1986 bpb", "Final score after TTT", "ttt", 1.1986, None),
        ("roundtrip bits per byte = 1.2251", "roundtrip", "roundtrip", 1.2251, None),
        ("=== sliding window: 1.1923 BPB ===", "sliding window", "sliding", 1.1923, None),
        ("Step 1000: val_bpb=1.3", "Step 1000", "training", 1.3, None),
        ("proxy val_bpb: 1.1", "proxy", "diagnostic", 1.1, None),
        ("pre_quant val_bpb:1.1", "pre_quant", "float", 1.1, None),
    ],
)
def test_shapes_that_are_read(line, label, kind, bpb, loss):
    found = read_score(line)
    assert found is not None
    assert (found.label, found.kind, found.bpb, found.loss) == (label, kind, bpb, loss)


UNREAD = (
    "improvement of 0.0021 bpb",
    "val_bpb went from 1.21 -> 1.19",
    "target val_bpb: 1.19",
    "sliding val_bpb:1.19 quantized val_bpb:1.21",
    "sliding bpb 1.1e0",
    "quantized val_bpb: 1,2345",
    "bpb: ~1.19 (best of 3)",
    "legal_ttt val_bpb: 110%",
    "legal_ttt val_bpb:-1.0812",
    "sliding val_bpb 64: 1.0812",
    "legal_ttt val_bpb:1.0812/1.0900",
    "legal_ttt val_bpb:1281.5",
    "legal_ttt val_bpb:1.0812 (first 10% of docs)",
    "legal_ttt val_bpb:1.0812 on train set",
    "expected legal_ttt val_bpb:1.0812",
    "would be legal_ttt val_bpb:1.0812 if it had run",
    "{'val_bpb': 1.0812}",
)


@pytest.mark.parametrize("line", UNREAD)
def test_what_is_not_read_is_listed_and_the_headline_is_unknown(tmp_path, line):
    assert read_score(line) is None
    assert names_score(line)
    (tmp_path / "a.log").write_text(f"{LOG_339}{line}\n")
    log = read_log(tmp_path / "a.log")
    assert [each.text for each in log.unread] == [line]
    assert levels(check_log(log))["log.headline"] == "unknown"


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_last_score_that_is_not_finite_fails(tmp_path, number):
    (tmp_path / "a.log").write_text(f"{LOG_339}legal_ttt val_loss:{number} val_bpb:{number}\n")
    assert levels(check_log(read_log(tmp_path / "a.log")))["log.headline"] == "fail"


def test_measurements_are_no_settings(tmp_path):
    """Each run measures something else at its own step; two recipes still differ."""
    for place, seed in enumerate((42, 314)):
        text = log_1716(seed).replace(
            "0/20000 val", f"swa:start step:{6400 + place}\nstep:100 loss:3.{place} t:9{place}ms\n0/20000 val"
        )
        (tmp_path / f"train_seed{seed}.log").write_text(text)
    assert levels(check_group(read_group([tmp_path])))["log.settings"] == "pass"


@pytest.mark.parametrize(
    ("change", "rule", "level"),
    [
        (
            {"seed_results": [{"seed": seed, "val_bpb": float(f[0][3])} for seed, f in FIGURES_1716.items()]},
            "claims.mean",
            "pass",
        ),
        ({"seed_results": [{"seed": seed, "val_bpb": 1.05} for seed in FIGURES_1716]}, "claims.mean", "fail"),
        ({"val_bpb": "1.07882 +- 0.00014", "val_bpb_std": None}, "claims.mean", "pass"),
        ({"val_bpb": "1.0600 \u00b1 0.0005", "val_bpb_std": None}, "claims.mean", "fail"),
        ({"val_bpb": None, "mean_val_bpb": 1.06}, "claims.mean", "fail"),
        ({"val_bpb": 1.08}, "claims.mean", "warn"),  # its own rounding holds, and hides 0.0012
        ({"val_bpb": 1.07881}, "claims.mean", "warn"),  # cut off, not rounded
    ],
)
def test_forms_of_claims(tmp_path, change, rule, level):
    folder = write_1716(tmp_path / "r")
    path = folder / "submission.json"
    stated = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in stated.items() if value is not None}))
    assert levels(check_group(read_group([folder])))[rule] == level


def test_sizes_in_words_and_by_seed(tmp_path):
    path = tmp_path / "submission_mine.json"
    path.write_text(json.dumps({"val_bpb": 1.1, "bytes_total": "14.2 MB"}))
    assert read_statement(path).total == 14_200_000
    path.write_text(json.dumps({"seed_results": {"7": {"val_bpb": 1.1}}, "artifact_bytes": {"7": 15_000_001}}))
    assert read_statement(path).of(7).total == 15_000_001


def test_a_submission_json_alone_proves_nothing(tmp_path):
    (tmp_path / "submission_mine.json").write_text(json.dumps({"val_bpb": 1.1}))
    assert levels(check_group(read_group([tmp_path])))["claims.mean"] == "unknown"
