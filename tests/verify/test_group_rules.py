"""What logs show against what submission.json states: published cases come out right, tampered ones fail."""

import json

import pytest

from codec.errors import InputError, UsageError
from tests.verify.records import (
    FIGURES_1176,
    LOG_162,
    LOG_339,
    STATED_1176,
    STATED_1716,
    log_1176,
    log_1716,
    write_1176,
    write_1716,
)
from verify.claims.group_rules import check_group
from verify.claims.headline import headline
from verify.claims.log_reader import read_log
from verify.claims.log_rules import check_log
from verify.claims.runs import read_group
from verify.claims.significance import SeedScores, compare
from verify.claims.submission_json import read_statement
from verify.claims.write_submission_json import as_submission_json


@pytest.fixture
def log(tmp_path):
    def from_text(text, name="train_seed1337.log"):
        (tmp_path / name).write_text(text)
        return read_log(tmp_path / name)

    return from_text


@pytest.fixture
def statement(tmp_path):
    def from_object(value):
        (tmp_path / "submission.json").write_text(value if isinstance(value, str) else json.dumps(value))
        return read_statement(tmp_path / "submission.json")

    return from_object


def found(findings):
    return {finding.rule: finding for finding in findings}


def levels(findings):
    return {finding.rule: finding.level for finding in findings}


def changed(text, **values):
    return json.dumps({**json.loads(text), **values})


def test_1716_passes_but_for_the_choice_of_test(tmp_path):
    group = read_group([write_1716(tmp_path / "1716")])
    findings = check_group(group, comparison=compare(group.sample, SeedScores(values=(1.081,)), group.bpb_per_nat))
    assert levels(findings) == {
        "log.bytes": "pass",
        "log.implied_bytes": "pass",
        "log.headline": "pass",
        "log.budget": "pass",
        "log.settings": "pass",
        "claims.mean": "pass",
        "claims.significance": "warn",
    }
    message = found(findings)["claims.significance"].message
    assert "one_sided_z_statistic -2.9982 is the one-sample z test with the shift" in message
    assert "Student t gives p = 0.04778" in message
    assert "its p is too small" in message
    evidence = found(findings)["log.budget"].evidence["logs"]
    assert [entry["eval_all"] for entry in evidence] == pytest.approx([480.408, 479.495, 477.724])


def test_1176_headline_is_refused_with_reasons(tmp_path):
    group = read_group([write_1176(tmp_path / "1176")])
    findings = found(check_group(group))
    assert levels(findings.values()) == {
        "log.bytes": "pass",
        "log.implied_bytes": "warn",
        "log.headline": "fail",
        "log.budget": "fail",
        "log.settings": "pass",
        "claims.mean": "fail",
    }
    assert [run.label for run in group.runs] == ["legal_ttt"] * 3
    assert group.sample.mean == pytest.approx(1.11217, abs=5e-6)
    by_seed = {entry["log"]: entry for entry in findings["log.headline"].evidence["logs"]}
    refused = by_seed["train_seed1337.log"]["refused"]
    assert [(each["label"], each["bpb"]) for each in refused] == [("final_slot", 1.09566416)]
    rule, rescored, budget = refused[0]["reasons"]
    assert "SLOT" in rule
    assert "already trained on" in rescored
    assert "764.7 s" in budget
    message = findings["log.budget"].message
    assert "evaluation 886.1 of 600 s, needed for `final_slot`: 764.7" in message
    assert "it is the mean of the refused `final_slot`" in findings["claims.mean"].message
    slot = [float(figures[3][1]) for figures in FIGURES_1176.values()]
    assert SeedScores(values=tuple(slot)).mean == pytest.approx(1.0961720, abs=5e-8)


def test_339_is_170051_bytes_over_the_cap(log):
    findings = found(check_log(log(LOG_339)))
    assert findings["log.bytes"].level == "fail"
    assert "170,051 over the cap" in findings["log.bytes"].message
    assert found(check_log(log(LOG_339), cap=16_170_051))["log.bytes"].level == "pass"
    assert findings["log.headline"].level == findings["log.budget"].level == "pass"


def test_tails_counted_again_are_seen_in_the_bytes_alone(log):
    """339 never says how many tokens it scored, and 162 calls its sliding score a roundtrip."""
    for text, label in ((LOG_339, "final_int6_sliding_window"), (LOG_162, "final_int8_zlib_roundtrip")):
        finding = found(check_log(log(text)))["log.implied_bytes"]
        assert finding.level == "warn"
        assert finding.evidence[label] == {"tokens": 62_023_616, "bytes": 151_084_796}
    assert found(check_log(log(LOG_339)))["log.implied_bytes"].evidence["final_int6_roundtrip"]["tokens"] == 62_021_632


# --- tampered and odd logs -------------------------------------------------------------------------------------------


def test_a_log_with_a_better_number(log, statement):
    """Both numbers changed alike, so that they still belong together: only submission.json gives it away."""
    text = log_1716(42).replace("val_loss:2.78662485 val_bpb:1.07886574", "val_loss:2.78000000 val_bpb:1.07630086")
    stated = statement(STATED_1716)
    honest, tampered = (found(check_log(log(each, "train_seed42.log"), stated)) for each in (log_1716(42), text))
    assert honest["log.headline"].level == "pass"
    assert tampered["log.implied_bytes"].level == "pass"
    assert tampered["log.headline"].level == "fail"
    assert "none of the log's scores" in tampered["log.headline"].message


@pytest.mark.parametrize("old", ["val_bpb:1.07886574", "val_bpb: 1.1030", "val_loss:2.78662485"])
def test_a_number_changed_alone_does_not_fit_its_line(log, old):
    name, _, value = old.rpartition(":")
    text = log_1716(42).replace(old, f"{name}:{float(value) - 0.01:.{len(value.partition('.')[2])}f}")
    finding = found(check_log(log(text)))["log.implied_bytes"]
    assert finding.level == "fail"
    assert "changed number" in finding.message


@pytest.mark.parametrize(
    ("tokens", "factor", "level", "words"),
    [
        (50_000_000, 1.0, "pass", "0.0000% from the challenge's"),  # an unknown tokenizer that keeps the text
        (50_000_000, 1.0413, "fail", "counted wrong"),  # byte pieces counted as three bytes
        (50_000_000, 0.2, "unknown", "another text"),
        (9_662_464, 32_756_252 / 151_077_000, "fail", "10,000 of the 50,000 documents"),
        (None, 1.0, "unknown", "no known one fits"),
    ],
)
def test_bytes_implied_for_other_texts(log, tokens, factor, level, words):
    loss, stated = 2.5, "" if tokens is None else f"val_tokens: {tokens}\n"
    bpb = loss * (tokens or 50_000_000) / (0.6931471805599453 * 151_077_000 * factor)
    text = f"{stated}quantized val_loss:{loss:.8f} val_bpb:{bpb:.8f}\n"
    finding = found(check_log(log(text)))["log.implied_bytes"]
    assert finding.level == level
    assert words in finding.message


def test_sizes_that_do_not_add_up_or_are_understated(log, statement):
    text = log_1716(42)
    wrong = text.replace("brotli: 15991203", "brotli: 15981203")
    assert found(check_log(log(wrong)))["log.bytes"].level == "fail"
    assert "but states 15,981,203" in found(check_log(log(wrong)))["log.bytes"].message
    small = statement({"bytes_total": "15,900,000"})
    assert found(check_log(log(text), small))["log.bytes"].level == "fail"
    wrapped = text.replace("Code size: 18097", "Code size (uncompressed): 53514 bytes\nCode size (compressed): 18097")
    assert found(check_log(log(wrapped)))["log.bytes"].level == "warn"
    assert found(check_log(log("quantized val_loss:2.0 val_bpb:1.0\n")))["log.bytes"].level == "not stated"


@pytest.mark.parametrize(
    ("stop", "ttt_ms", "world", "level"),
    [
        (600_000, 300_000, "8", "pass"),
        (600_150, 300_000, "8", "warn"),  # the step that crosses the cap
        (600_300, 300_000, "8", "fail"),
        (588_000, 500_000, "8", "warn"),  # over with the diagnostics, not without
        (588_000, 600_001, "8", "fail"),
        (2_400_000, 7_457_100, "1", "unknown"),
    ],
)
def test_budget(log, stop, ttt_ms, world, level):
    text = log_1716(42).replace("588110ms step", f"{stop}ms step").replace("336109ms", f"{ttt_ms}ms")
    text = text.replace("world_size: 8", f"world_size: {world}")
    assert found(check_log(log(text)))["log.budget"].level == level


@pytest.mark.parametrize(("spent", "level"), [(9_000, "pass"), (90_000, "fail")])
def test_calibration_is_training_time(log, spent, level):
    text = log_1716(42).replace("588110ms step", "590000ms step") + f"phase_times calibrate:{spent}ms\n"
    finding = found(check_log(log(text)))["log.budget"]
    assert finding.level == level
    total = 590 + spent / 1000
    assert f"training 590.00 + calibration {spent / 1000:.2f} = {total:.2f} of 600 s, " in finding.message
    assert finding.evidence["calibrate"] == spent / 1000


def test_the_total_that_a_log_states_counts_too(log):
    text = log_1716(42) + "total_eval_time:627.3s\n"
    finding = found(check_log(log(text)))["log.budget"]
    assert finding.evidence["eval_all"] == 627.3


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("final_slot val_loss:2.7 val_bpb:1.0453", "SLOT"),
        ("final_int6_sliding_etlb val_loss:2.7 val_bpb:1.0453", "ETLB"),
        ("quantized_ngram_tilt val_loss:2.7 val_bpb:1.0453", "mixture"),
        ("final_two_pass val_loss:2.7 val_bpb:1.0453", "second pass"),
        ("final_best val_loss:2.7 val_bpb:1.0453", "unknown label"),
    ],
)
def test_later_scores_that_do_not_count(log, statement, extra, reason):
    taken = headline(log(f"{log_1716(42)}{extra}\n"))
    assert taken.metric.label == "quantized_ttt"
    assert reason in taken.refused[0].reasons[0]
    findings = found(check_log(log(f"{log_1716(42)}{extra}\n", "train_seed42.log")))
    assert findings["log.headline"].level == ("unknown" if reason == "unknown label" else "warn")
    claimed = statement({"val_bpb": 1.0453})
    assert found(check_log(log(f"{log_1716(42)}{extra}\n"), claimed))["log.headline"].level == "fail"


def test_settings_and_earlier_lines_that_spoil_a_harmless_label(log):
    slot = log_1716(42, settings="  slot_in_ttt: True\n")
    assert headline(log(slot)).metric.label == "quantized_sliding_window"
    assert headline(log(slot.replace("True", "False"))).metric.label == "quantized_ttt"
    trained = log_1716(42).replace(
        "quantized val_loss", "post-prequant-ttt val_loss:2.8 val_bpb:1.084\nquantized val_loss"
    )
    result = headline(log(trained))
    assert not result.of_artifact
    assert len(result.refused) == 4
    assert all("validation tokens" in " ".join(each.reasons) for each in result.refused)


def test_a_score_of_float_weights_is_not_the_artifacts(log, statement):
    text = "seed:3\nstep:9/9 val_loss:2.00000000 val_bpb:1.10000000 train_time:500ms\n"
    findings = found(check_log(log(text)))
    assert findings["log.headline"].level == "not stated"
    assert "float weights" in findings["log.headline"].message
    for stated, level in ((1.1, "not stated"), (1.2, "fail"), (1.1000000049, "not stated")):
        assert found(check_log(log(text), statement({"pre_quant_val_bpb": stated})))["log.headline"].level == level
    assert found(check_log(log(text), statement({"val_bpb": 1.2})))["log.headline"].level == "unknown"
    claimed = statement({"val_bpb": 1.08584188, "seed_results": {"42": {"val_bpb": 1.08584188}}})
    finding = found(check_log(log(log_1716(42), "train_seed42.log"), claimed))["log.headline"]
    assert finding.level == "fail"
    assert "float weights" in finding.message


def test_nothing_that_counts_is_an_error(log):
    with pytest.raises(InputError, match=r"holds no score that counts: `final_slot` is SLOT"):
        headline(log("final_slot val_loss:2.0 val_bpb:1.0\n"))


# --- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: text.replace("matrix_lr: 0.022", "matrix_lr: 0.024"), "matrix_lr (0.022 / 0.024)"),
        (lambda text: text.replace("train_shards: 128", "train_shards: 80"), "train_shards (128 / 80)"),
        (lambda text: text.replace("18097 bytes", "18098 bytes").replace("15996103", "15996104"), "different scripts"),
        (lambda text: text.replace("seed: 999", "seed: 42"), "a seed twice"),
        (lambda text: log_1716(42).replace("seed: 42", "seed: 999"), "the same score twice"),
    ],
)
def test_logs_that_are_not_seeds_of_one_recipe(tmp_path, edit, words):
    folder = write_1716(tmp_path / "mixed")
    path = folder / "train_seed999.log"
    path.write_text(edit(path.read_text()))
    finding = found(check_group(read_group([folder])))["log.settings"]
    assert finding.level == "fail"
    assert words in finding.message


@pytest.mark.parametrize(
    ("values", "level", "words"),
    [
        ({"val_bpb": 1.0787}, "fail", "is 1.07881679"),
        ({"val_bpb": 1.07865582}, "fail", "score of train_seed999.log alone"),
        ({"val_bpb": "1.0788"}, "pass", "mean of 3 runs"),
        ({"val_bpb": None, "mean_bpb": 1.07881679}, "pass", "mean of 3 runs"),
        ({"val_bpb_std": 0.0001167}, "warn", "population deviation"),
        ({"val_bpb_std": 0.0002}, "warn", "not theirs"),
        ({"seeds": [42, 314, 7]}, "warn", "names seeds 7, 42, 314"),
        ({"seeds": [42, 314, 999, 7], "val_bpb": 1.0}, "unknown", "no log of seeds 7"),
    ],
)
def test_mean_deviation_and_seeds(tmp_path, values, level, words):
    folder = write_1716(tmp_path / "claims")
    (folder / "submission.json").write_text(changed(STATED_1716, **values))
    finding = found(check_group(read_group([folder])))["claims.mean"]
    assert (finding.level, words in finding.message) == (level, True), finding.message


@pytest.mark.parametrize(
    ("stated", "readme", "level", "words"),
    [
        ({"p_value": 0.0798}, "", "warn", "p_value 0.0798 is the Welch t test with the shift"),
        ({"t_statistic": "-15.551"}, "", "warn", "leaves out the 0.005 nats"),
        ({}, "Student's t-test gives p = 0.0478.\n", "warn", "README.md 0.0478 is the one-sample Student t"),
        ({}, "Two-sided: p-value 0.0956\n", "warn", "README.md 0.0956 is the one-sample Student t"),
        ({}, "We reach 0.0478 of something.\n", "not stated", "states no statistic"),
        ({}, "Significant by a t-test at p = 0.05.\n", "not stated", "states no statistic"),  # a bound, not a result
        ({"p_value": 0.0018}, "", "unknown", "none of the tests gives"),
    ],
)
def test_which_test_a_claim_used(tmp_path, stated, readme, level, words):
    folder = write_1716(tmp_path / "claims")
    (folder / "submission.json").write_text(changed(STATED_1716, vs_merged_sota=stated))
    (folder / "README.md").write_text(readme)
    group = read_group([folder])
    against = SeedScores(values=(1.08079, 1.08103, 1.08118))
    findings = found(check_group(group, comparison=compare(group.sample, against, group.bpb_per_nat)))
    finding = findings["claims.significance"]
    assert (finding.level, words in finding.message) == (level, True), finding.message


def test_a_claim_that_every_test_supports(tmp_path):
    (tmp_path / "submission.json").write_text(
        json.dumps(
            {
                "seed_results": {"1": {"val_bpb": 1.0, "val_loss": 2.0}, "2": {"val_bpb": 1.001, "val_loss": 2.002}},
                "val_bpb": 1.0005,
                "welch_t": -99.0,
            }
        )
    )
    group = read_group([tmp_path])
    comparison = compare(group.sample, SeedScores(values=(1.2, 1.2005)), group.bpb_per_nat)
    shifted = comparison.test("welch", shifted=True)
    (tmp_path / "submission.json").write_text(
        changed((tmp_path / "submission.json").read_text(), welch_t=round(shifted.statistic, 4))
    )
    group = read_group([tmp_path])
    assert found(check_group(group, comparison=comparison))["claims.significance"].level == "pass"


# --- submission.json, in ---------------------------------------------------------------------------------------------


def test_variants_of_submission_json(statement):
    stated = statement(STATED_1176)
    assert (str(stated.bpb), str(stated.sd), str(stated.total)) == ("1.0962", "0.0005", "15980000")
    assert {each.seed: str(each.bpb) for each in stated.seeds} == {1337: "1.0957", 42: "1.0963", 2024: "1.0966"}
    assert stated.seed_numbers == (1337, 42, 2024)
    stated = statement(
        {"val_bpb": 1.08100, "seeds": {"seed_42": {"val_bpb": 1.08}, "7": 1.09}, "artifact_bytes_max": 5}
    )
    assert {each.seed: str(each.bpb) for each in stated.seeds} == {42: "1.08", 7: "1.09"}
    assert stated.total == 5
    nothing = statement(
        {"val_bpb": None, "seeds": "three", "seed_results": [1], "bytes_total": True, "extra": {"a": 1}}
    )
    assert (nothing.bpb, nothing.total, nothing.seeds, nothing.seed_numbers) == (None, None, (), ())
    assert nothing.raw["extra"] == {"a": 1}


def test_digits_as_written_decide_what_agrees(statement):
    """1.08100 is closer than 1.081: the zeros were written."""
    from verify.claims.submission_json import agrees

    stated = statement('{"val_bpb": 1.08100}')
    assert agrees(stated.bpb, 1.0810049)
    assert not agrees(stated.bpb, 1.08104)
    assert agrees(statement('{"val_bpb": 1.081}').bpb, 1.08104)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN', "\x00", "[" * 100_000])
def test_a_broken_submission_json_is_one_sentence(statement, text):
    with pytest.raises(InputError, match=r"is not JSON|is not a JSON object|is empty"):
        statement(text)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "1e400", "1e-99999", "9" * 5000, [1], {"a": 1}, "about 1.08", True]
)
def test_what_is_no_number_counts_as_not_stated(statement, value):
    stated = statement({"val_bpb": value, "bytes_total": value, "seed_results": {"7": value, "8" * 5000: 1.0}})
    assert stated.bpb is stated.total is stated.of(7).bpb is None
    assert len(stated.seeds) == 1


def test_numbers_beyond_any_type_and_below_zero_count_as_not_stated(statement):
    stated = statement(
        '{"val_bpb": 1e99999999999999999999999, "val_loss": -2, "seed_results": {"7": {"val_bpb": -1.1}}}'
    )
    assert stated.bpb is stated.loss is stated.of(7).bpb is None
    assert statement('{"val_bpb": Infinity, "bytes_total": NaN}').bpb is None


@pytest.mark.parametrize(("stated", "level"), [(15_993_825, "pass"), (15_993_820, "fail"), (15_999_999, "pass")])
def test_a_mean_of_sizes_is_held_against_the_mean(tmp_path, stated, level):
    """Mean of 1716's three totals: 15,993,825.33; two of them are larger."""
    folder = write_1716(tmp_path / "1716")
    (folder / "submission.json").write_text(json.dumps({"val_bpb": 1.07882, "artifact_bytes_mean": stated}))
    assert levels(check_group(read_group([folder])))["log.bytes"] == level


# --- submission.json, out --------------------------------------------------------------------------------------------


def test_record_of_1716(tmp_path):
    group = read_group([write_1716(tmp_path / "1716")])
    comparison = compare(group.sample, SeedScores(values=(1.081,)), group.bpb_per_nat)
    written = as_submission_json(group, check_group(group, comparison=comparison), comparison)
    assert (written["val_bpb"], written["val_bpb_std"]) == (1.07881679, 0.00014293)
    assert written["val_loss"] == 2.78649843
    assert written["seeds"] == [42, 314, 999]
    assert (written["bytes_total"], written["bytes_code"]) == (15_996_103, 18_097)
    assert written["seed_results"]["42"] == {
        "val_bpb": 1.07886574,
        "val_loss": 2.78662485,
        "artifact_bytes": 15_991_203,
        "code_bytes": 18_097,
        "model_bytes": 15_973_106,
        "train_time_ms": 588_110,
        "eval_time_ms": 336_109,
        "steps": 4393,
        "n_tokens": 40_542_208,
        "n_bytes": 151_075_152,
    }
    assert (written["author"], written["hardware"], written["blurb"]) == ("someone", "8xH100 80GB SXM", None)
    assert written["eval"] == {
        "mode": "quantized_ttt",
        "L": 2048,
        "S": 64,
        "ttt": {"ttt_epochs": 3, "ttt_lr": 0.005, "ttt.chunks": 1238, "ttt.ttt_lr": 0.005, "ttt.ttt_epochs": 3},
        "n_tokens": 40_542_208,
        "n_bytes": 151_075_152,
    }
    assert written["significance"]["threshold_bpb"] == 1.07906421
    (tmp_path / "1716" / "submission.json").write_text(json.dumps(written))  # what is written is read again, and holds
    again = read_group([tmp_path / "1716"])
    findings = levels(check_group(again, comparison=comparison))
    assert findings["claims.mean"] == findings["log.headline"] == findings["log.bytes"] == "pass"


def test_a_loss_of_zero_is_written_as_it_was_logged(tmp_path):
    (tmp_path / "a_seed7.log").write_text("quantized val_loss:0.0 val_bpb:1.5\n")
    group = read_group([tmp_path])
    written = as_submission_json(group, check_group(group), None)
    assert (written["val_loss"], written["eval"]["n_tokens"]) == (0.0, None)


def test_float_scores_are_not_held_against_the_artifacts(tmp_path):
    """A folder with one log that scores the float weights, and what `pgolf verify` measured filled in."""
    (tmp_path / "train.log").write_text("seed:7\nstep:9/9 val_loss:2.0 val_bpb:1.18000000\n")
    (tmp_path / "submission.json").write_text(json.dumps({"val_bpb": 1.19, "seeds": [7]}))
    assert levels(check_group(read_group([tmp_path])))["claims.mean"] == "unknown"
    (tmp_path / "b_seed8.log").write_text("quantized val_loss:2.0 val_bpb:1.19000000\n")
    assert levels(check_group(read_group([tmp_path])))["claims.mean"] != "fail"
    (tmp_path / "submission.json").write_text(json.dumps({"val_bpb": 1.18}))
    assert levels(check_group(read_group([tmp_path])))["claims.mean"] == "fail"


def test_record_takes_the_legal_score_and_invents_nothing(tmp_path):
    folder = write_1176(tmp_path / "1176")
    (folder / "submission.json").unlink()
    group = read_group([folder])
    written = as_submission_json(group, check_group(group), None)
    assert written["val_bpb"] == round(sum(run.bpb for run in group.runs) / 3, 8) > 1.11
    assert written["eval"]["mode"] == "legal_ttt"
    assert written["compliance"]["log.headline"] == "warn"
    for key in ("author", "github_id", "name", "blurb", "date", "track", "hardware", "tokenizer", "significance"):
        assert written[key] is None


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({"submission.json": STATED_1716}, UsageError, "no logs"),
        ({"a.log": LOG_339}, InputError, "names no seed"),
        ({"a_seed7.log": LOG_339, "b_seed7.log": LOG_339.replace("6642", "6643")}, InputError, "same seed"),
        ({"a_seed7.log": "step:9/9 val_loss:2.0 val_bpb:1.0\n"}, InputError, "no legal score of a packed model"),
    ],
)
def test_record_refuses(tmp_path, files, kind, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(kind, match=words):
        as_submission_json(read_group([tmp_path]), [], None)


def test_groups_from_files_and_folders(tmp_path):
    folder = write_1716(tmp_path / "1716")
    (folder / "requirements.txt").write_text("torch\n")
    (folder / "notes.txt").write_text("nothing measured\n")
    group = read_group([folder])
    assert [run.seed for run in group.runs] == [42, 314, 999]
    assert [path.name for path in group.skipped] == ["notes.txt"]
    stated = read_group([folder / "submission.json"])
    assert [(run.seed, run.label) for run in stated.runs] == [(seed, "submission.json") for seed in (42, 314, 999)]
    assert stated.sample.values == group.sample.values
    (tmp_path / "other").mkdir()
    for paths, words in (
        ([folder, write_1176(tmp_path / "1176")], "second submission.json"),
        ([tmp_path / "other"], r"neither \*.log nor"),
        ([folder / "notes.txt"], "no line with val_loss"),
        ([tmp_path / "missing"], "no such file"),
    ):
        with pytest.raises(InputError, match=words):
            read_group(paths)


def test_a_log_of_1176_alone_warns_and_says_what_it_took_instead(log):
    finding = found(check_log(log(log_1176(42), "train_seed42.log")))["log.headline"]
    assert finding.level == "warn"
    assert "taken instead: `legal_ttt` 1.11226855" in finding.message


@pytest.mark.parametrize(
    ("size", "level"), [(13_176, "unknown"), (13_178, "unknown"), (13_250, "fail"), (12_000, "fail")]
)
def test_bytes_that_a_line_states_are_those_it_implies(log, size, level):
    """As a packed script prints its score, of a text that nobody knows."""
    line = (
        f"final_sliding_window_exact val_loss:4.98416532 val_bpb:3.35955691 tokens:6156 bytes:{size} eval_time:55ms\n"
    )
    finding = found(check_log(log(line)))["log.implied_bytes"]
    assert finding.level == level
    assert ("loss and bpb imply 13,176" in finding.message) == (level == "fail")
