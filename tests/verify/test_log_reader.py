"""The grammar of logs: each dialect of the field, and lines that only look like results."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import InputError
from tests.conftest import ROOT
from tests.verify.records import LOG_162, LOG_339, SOURCE, log_1176, log_1716
from verify.claims.log_reader import read_log
from verify.claims.log_rules import check_log
from verify.claims.runs import Run


@pytest.fixture
def read(tmp_path):
    def from_text(text, name="some.log"):
        (tmp_path / name).write_text(text)
        return read_log(tmp_path / name)

    return from_text


@pytest.mark.parametrize(
    ("line", "label", "kind", "seconds"),
    [
        ("step:4000/20000 val_loss:2 val_bpb:1.5 train_time:1ms step_avg:0.1ms", "step:4000/20000", "training", None),
        ("4000/20000 val_loss: 2 val_bpb: 1.5", "4000/20000", "training", None),
        ("DIAGNOSTIC post_ema val_loss:2 val_bpb:1.5 eval_time:1971ms", "DIAGNOSTIC post_ema", "float", 1.971),
        ("pre-quantization post-ema val_loss:2 val_bpb:1.5", "pre-quantization post-ema", "float", None),
        ("diagnostic quantized val_loss:2 val_bpb:1.5 eval_time:12561ms", "diagnostic quantized", "roundtrip", 12.561),
        ("quantized val_loss:2 val_bpb:1.5 time:500ms", "quantized", "roundtrip", 0.5),
        ("final_ternary_roundtrip val_loss:2 val_bpb:1.5", "final_ternary_roundtrip", "roundtrip", None),
        (
            "final_int8_zlib_roundtrip val_loss:2 val_bpb:1.5 eval_time:1548ms eval_seq_len:2048",
            None,
            "roundtrip",
            1.548,
        ),
        ("quantized_sliding_window val_loss:2 val_bpb:1.5", "quantized_sliding_window", "sliding", None),
        ("final_int6_sliding_window_s64 val_loss:2 val_bpb:1.5 stride:64 eval_time:9ms", None, "sliding", 0.009),
        ("final_sliding_window_eval stride:64 val_loss:2 val_bpb:1.5", "final_sliding_window_eval", "sliding", None),
        ("final_sliding val_loss:2 val_bpb:1.5", "final_sliding", "sliding", None),
        ("ttt_sliding:done val_loss=2 val_bpb=1.5 elapsed=409.8s", "ttt_sliding:done", "ttt", 409.8),
        ("quantized_ttt_phased val_loss:2 val_bpb:1.5 eval_time:453812ms", None, "ttt", 453.812),
        ("final_int8_ttt_lora val_loss:2 val_bpb:1.5", "final_int8_ttt_lora", "ttt", None),
        ("final_causal_slot val_loss:2 val_bpb:1.5", "final_causal_slot", "slot", None),
        ("final_int6_sliding_etlb val_loss:2 val_bpb:1.5", "final_int6_sliding_etlb", "etlb", None),
        ("post-prequant-ttt val_loss:2 val_bpb:1.5", "post-prequant-ttt", "prequant_ttt", None),
        ("final_ngram_mix val_loss:2 val_bpb:1.5", "final_ngram_mix", "mixture", None),
        ("best_of_all val_loss:2 val_bpb:1.5", "best_of_all", "other", None),
        ("2026-03-20 16:06:37,562 | quantized val_loss:2 val_bpb:1.5", "quantized", "roundtrip", None),
        ("[2026-03-20T16:06:37.562Z] quantized val_loss:2 val_bpb:1.5", "quantized", "roundtrip", None),
        ("[16:06:37] quantized val_loss:2, val_bpb:1.5", "quantized", "roundtrip", None),
        ("[rank0]: quantized val_loss:2 val_bpb:1.5", "quantized", "roundtrip", None),
        ("\x1b[32mquantized val_loss:2 val_bpb:1.5\x1b[0m", "quantized", "roundtrip", None),
    ],
)
def test_labels_separators_and_stamps(read, line, label, kind, seconds):
    (metric,) = read(f"before\n{line}\nafter\n").metrics
    assert metric.label == (label or line.split(" ")[0])
    assert (metric.kind, metric.loss, metric.bpb, metric.seconds) == (kind, 2.0, 1.5, seconds)
    assert (metric.line, metric.decimals) == (2, 1)


def test_the_words_in_front_keep_their_pairs(read):
    (metric,) = read("final_sliding_window_exact stride:64 val_loss:2.0 val_bpb:1.5 seq_len:4096\n").metrics
    assert metric.notes == {"stride": "64", "seq_len": "4096"}


@pytest.mark.parametrize(
    "line",
    [
        'log0(f"final_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")',
        '    log0("final_exact val_loss:1.00000000 val_bpb:0.50000000")',
        "# final_exact val_loss:1.00000000 val_bpb:0.50000000",
        "- `final_exact val_loss:1.00000000 val_bpb:0.50000000`",
        "W0418 08:13:00.952 1 torch/run.py:803] val_loss:1.0000 val_bpb:0.5000",
        "better than val_loss:1.00000000 val_bpb:0.50000000 of all others",
        "val_bpb:enabled tokenizer_kind=sentencepiece",
        "temp_search: temp=0.85 val_bpb=1.2431",
        "  ttt_chunk [1/1893] bpb=1.159980 time=0.5s",
        "  sliding_eval [ 99.1%] 120032/121136 windows running_bpb=1.151319",
        "ttp: b776/782 bl:2.2579 bb:1.0705",
        "final_exact train_loss:1.00000000 val_bpb:0.50000000",
    ],
)
def test_lines_that_only_look_like_results(read, line):
    (metric,) = read(f"{line}\nquantized val_loss:2.0 val_bpb:1.5\n{line}\n").metrics
    assert metric.label == "quantized"
    with pytest.raises(InputError, match="no line with val_loss and val_bpb"):
        read(line)


def test_scores_in_the_words_of_1123(read):
    """No loss beside them; the number stands, and what needs a loss says that it cannot tell."""
    log = read("Sliding: 1.21\nTTT bpb: 1.198562\nTTT: 3 epochs\nTTT bpb: 1.1986 (7,457.1s)\n")
    (metric,) = log.metrics
    assert (metric.label, metric.kind, metric.bpb, metric.loss) == ("TTT", "ttt", 1.198562, None)
    assert read("Legal TTT: 1.198562\n").metrics[0].kind == "ttt"
    run = Run.of_log(log)
    assert (run.bpb, run.loss) == (1.198562, None)
    assert {finding.rule: finding.level for finding in check_log(log)}["log.implied_bytes"] == "not stated"


def test_the_script_in_front_is_not_read(read):
    log = read(log_1176(42))
    assert [metric.label for metric in log.metrics] == [
        "step:0/9000",
        "step:6845/9000",
        "DIAGNOSTIC post_ema",
        "final_int6_roundtrip",
        "final_int6_sliding_window",
        "legal_ttt",
        "final_slot",
    ]
    assert log.seed == 42
    assert log.sizes.total == 15_970_834
    assert len(log.code_sha256) == 64
    assert (
        log.code_sha256
        == read(log_1176(1337)).code_sha256
        != read(log_1176(42).replace("def main", "def mine")).code_sha256
    )


def test_our_own_sources_are_not_results(read):
    """Every module and test of this project in front of a log, these tests with their look-alikes included."""
    for path in sorted({*ROOT.glob("trainer/**/*.py"), *ROOT.glob("verify/**/*.py"), *ROOT.glob("tests/verify/*.py")}):
        log = read(f"{path.read_text()}\n{'=' * 100}\n{LOG_339}")
        assert log.metrics[-1].bpb == 1.13643981, path
        assert len(log.metrics) == 4, path
        assert log.sizes.total == 16_170_051, path


def test_twins_are_one_measurement_with_all_digits(read):
    slot = read(log_1176(1337)).metrics[-1]
    assert (slot.label, slot.loss, slot.bpb, slot.decimals, slot.seconds) == (
        "final_slot",
        1.84997814,
        1.09566416,
        8,
        248.0,
    )
    ttt = read(log_1176(1337)).metrics[-2]  # ttt_sliding:done with 6 digits, legal_ttt with 4, legal_ttt_exact with 8
    assert (ttt.label, ttt.bpb, ttt.seconds, ttt.also) == ("legal_ttt", 1.11164189, 516.7, ("ttt_sliding:done",))
    sliding = read(log_1176(1337)).metrics[-3]  # the same score under the label of another
    assert sliding.also == ("final_int8_zlib_roundtrip",)
    assert sliding.notes["stride"] == "64"


def test_unlike_scores_that_round_alike_stay_two(read):
    log = read("step:9/9 val_loss:2.0001 val_bpb:1.5001\nquantized val_loss:2.0001 val_bpb:1.5001\n")
    assert len(log.metrics) == 2
    log = read("step:1/9 val_loss:2.0001 val_bpb:1.5001\nstep:2/9 val_loss:2.0001 val_bpb:1.5001\n")
    assert len(log.metrics) == 2


def test_sizes_times_and_settings(read):
    log = read(log_1716(314))
    assert (log.sizes.code, log.sizes.model, log.sizes.total) == (18_097, 15_976_073, 15_994_170)
    assert (log.train_seconds, log.steps, log.targets, log.seed) == (588.031, 4393, 40_542_208, 314)
    assert [metric.seconds for metric in log.metrics[-3:]] == [24.114, 119.913, 335.468]
    assert log.settings["eval_stride"] == "64"
    assert log.settings["train_shards"] == "128"
    assert log.settings["ttt.chunks"] == "1238"
    assert "train_loss" not in log.settings


def test_the_float_checkpoint_and_wrong_codec_names_do_not_mislead_sizes(read):
    """162 calls its zstd blob int8+zlib in one of two lines, and logs the size of the float checkpoint first."""
    log = read(LOG_162)
    assert (log.sizes.model, log.sizes.total) == (15_892_664, 15_944_907)
    assert (log.train_seconds, log.steps, log.seed, log.targets) == (600.101, 7393, 7, 62_021_632)
    unpacked = read(LOG_162.partition("Serialized model int6")[0]).sizes
    assert (unpacked.model, unpacked.total) == (None, None)


def test_two_code_sizes_the_total_tells_which_counts(read):
    sizes = read(
        "Code size (uncompressed): 157,868 bytes\nCode size (compressed): 31999 bytes\n"
        "Serialized model quantized+pergroup: 100 bytes (payload:1 ratio:2x)\n"
        "Total submission size quantized+pergroup: 32099 bytes\nquantized val_loss:2.0 val_bpb:1.5\n"
    ).sizes
    assert (sizes.code, sizes.readable_code, sizes.total) == (31_999, 157_868, 32_099)


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("train_seed1337.log", 1337),
        ("train_s42.log", 42),
        ("run_seed-7.txt", 7),
        ("train.log", None),
        ("x_sp1.log", None),
    ],
)
def test_seed_from_the_name_when_the_log_is_silent(read, name, seed):
    assert read(LOG_339, name).seed == seed
    assert read(LOG_162, name).seed == 7


@given(st.lists(st.text(max_size=60), max_size=8), st.lists(st.text(max_size=60), max_size=8))
def test_noise_around_a_log_changes_nothing(tmp_path_factory, before, after):
    path = tmp_path_factory.mktemp("noise") / "train_seed1337.log"
    noise = ["\n".join(lines).replace('"""', "").replace("'''", "") for lines in (before, after)]
    path.write_text(f"{noise[0]}\n{LOG_339}\n{noise[1]}\n", encoding="utf-8", errors="replace")
    log = read_log(path)
    assert [metric.bpb for metric in log.metrics] == [1.3562, 1.1493, 1.15883610, 1.13643981]
    assert log.sizes.total == 16_170_051


@pytest.mark.parametrize(
    "line",
    [
        "{" * 50_000,
        '{"a":' * 900 + "1" + "}" * 900,
        f"seed:{'9' * 5000}",
        f"val_tokens:{'9' * 5000}",
        f"Code size: {'9' * 5000} bytes",
        f"final val_loss:{'9' * 5000} val_bpb:1.0",
        f"step:{'9' * 5000}/1 val_loss:1.0 val_bpb:1.0",
        "a " * 50_000 + "val_loss:",
        "a:" * 50_000,
        "a: b " * 20_000 + "(",
    ],
)
def test_lines_of_absurd_length_or_depth_do_no_harm(read, line):
    log = read(f"{line}\n{LOG_339}{line}\n")
    assert (log.metrics[-1].bpb, log.seed, log.targets) == (1.13643981, None, None) or line.startswith("step:9")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"\x00\xff" * 50, "holds no line"),
        (SOURCE.encode(), "holds no line"),
    ],
)
def test_what_is_no_log_is_refused_in_a_sentence(tmp_path, content, words):
    path = Path(tmp_path / "x.log")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_log(path)
