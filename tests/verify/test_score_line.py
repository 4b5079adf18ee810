"""A line that names bits per byte is read, or it is listed; nothing between."""

import json

import pytest

from tests.verify.records import FIGURES_1716, LOG_339, log_1716, write_1716
from verify.claims.group_rules import check_group
from verify.claims.log_reader import read_log, read_logs
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
        ("sliding bpb 1.1931e0", "sliding", "sliding", 1.1931, None),
        ("sliding val_bpb:1.1931.", "sliding", "sliding", 1.1931, None),
        ("quantized val_loss:2.07, val_bpb:1.22,", "quantized", "roundtrip", 1.22, 2.07),
        ("quantized val_bpb:1.2200\u00b10.0003", "quantized", "roundtrip", 1.22, None),
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
    "best sliding val_loss:2.0 val_bpb:1.19",
    "this is not a roundtrip val_bpb: 1.21",
    "no_slot val_bpb:1.05",
    "without_ttt val_bpb:1.09",
    "legal_ttt val_bpb:1.0812 (projected)",
    "quantized val_bpb_ema:1.21",
    "step:7/9 sliding val_loss:2.0 val_bpb:1.19",
    "sliding val_bpb:1.19 window 3/77",
    "sliding val_bpb: 1.19 1.18",
    "Sliding window => 1.19",
    "quantized: 1.213",
    "final_roundtrip=1.213",
    "Score-first TTT score is 1.08",
    "| int6 roundtrip | 1.2134 |",
    "quantized val_bpb:\u22481.2345",
    "quantized val_bpb:\u22121.2345",
    "quantized val_bpb: 1'234.5",
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


@pytest.mark.parametrize(
    "line", ["ttt_lr: 0.912", "slot:start steps=8 lr=0.955", "quantized in 1.21 s", "ttt loss 2.01"]
)
def test_other_figures_beside_a_way_of_scoring_are_no_scores(line):
    assert read_score(line) is None
    assert not names_score(line)


@pytest.mark.parametrize("first", ["quantized val_loss:2.0 val_bpb:", "Sliding window:", "bits per byte ->"])
def test_a_figure_on_the_next_line_is_listed(tmp_path, first):
    (tmp_path / "a.log").write_text(f"{LOG_339}{first}\n  1.0612\n")
    log = read_log(tmp_path / "a.log")
    assert [each.text for each in log.unread] == [first]
    assert levels(check_log(log))["log.headline"] == "unknown"


def test_digits_behind_the_point_of_a_power():
    assert [read_score(f"quantized val_bpb:{each}").decimals for each in ("1.2134e0", "12.134e-1", "0.12e+1")] == [
        4,
        4,
        1,
    ]


def test_a_step_of_scoring_behind_the_run_begins_no_other(tmp_path):
    (tmp_path / "a.log").write_text(f"{LOG_339}step:3/100 sliding val_loss:2.0 val_bpb:1.19\n")
    (log,) = read_logs(tmp_path / "a.log")
    assert (log.killed, [each.text[:10] for each in log.unread]) == (False, ["step:3/100"])


@pytest.mark.parametrize(
    ("line", "words", "level"),
    [
        (
            "final_sliding_exact val_loss:1.91882594 val_bpb:1.13643981 eval_time:1155",
            "behind its score is lost",
            "pass",
        ),
        ("Total submission size int6+zlib: 1599", "the file ends inside it", "unknown"),
    ],
)
def test_a_cut_inside_another_number_is_named(tmp_path, line, words, level):
    (tmp_path / "a.log").write_text(f"{LOG_339}{line}")
    log = read_log(tmp_path / "a.log")
    finding = next(each for each in check_log(log) if each.rule == "log.headline")
    assert (finding.level, words in finding.message) == (level, True), finding.message
    assert [each.text for each in log.unread] == [line]


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
    ("line", "level"),
    [
        ("warmdown_frac:0.{} qk_norm:1", "fail"),
        ("z_loss:0.{} seq_len:9", "fail"),
        ("reserve:1{}s", "fail"),
        ("max_time:60{}", "fail"),
        ("grad_norm:3.{} compile_time:2{}s", "pass"),
        ("init_loss:10.{} mem:2{}GB", "pass"),
        ("warmup lr:0.1{0}\nscale:0.{0}\nscale:0.7", "pass"),
        ("scale:0.{0}\nscale:0.{0}", "fail"),
    ],
)
def test_what_is_chosen_is_compared_and_what_is_measured_is_not(tmp_path, line, level):
    """A line before training, with another figure in each of two logs."""
    for place, seed in enumerate((42, 314)):
        text = log_1716(seed).replace("0/20000 val", f"{line.format(place, place)}\n0/20000 val")
        (tmp_path / f"train_seed{seed}.log").write_text(text)
    assert levels(check_group(read_group([tmp_path])))["log.settings"] == level


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
