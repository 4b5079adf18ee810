"""What terminals and launchers put around a log changes none of its facts; runs in one file stay apart."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import InputError
from tests.verify.records import log_1716
from verify.claims.headline import headline
from verify.claims.log_reader import Log, read_log, read_logs
from verify.claims.log_rules import check_log
from verify.claims.log_text import read_lines

PREFIXES = {
    "": "",
    "epoch": "1776143356.801 ",
    "milliseconds": "[1776143356801] ",
    "logging": "2026-04-01 12:00:00,123 - INFO - ",
    "named": "2026-04-01 12:00:00,123 - train.loop - WARNING - ",
    "basic": "INFO:root:",
    "loguru": "2026-04-01 12:00:00.123 | INFO     | __main__:main:10 - ",
    "absl": "I0401 12:00:00.123456 140213 train.py:77] ",
    "k8s": "2026-04-01T12:00:00.123456789Z stdout F ",
    "journald": "Apr 01 12:00:00 node-7 python3[4242]: ",
    "docker": "2026-04-01T12:00:00.123456789Z ",
    "compose": "trainer-1  | ",
    "torchrun": "[default0]:",
    "rank": "[rank0]: ",
    "mpi": "[1,0]<stdout>:",
    "srun": "0: ",
    "ray": "(TrainWorker pid=4242, ip=10.0.0.7) ",
    "color": "\x1b[32m",
    "title": "\x1b]0;training run\x07",
    "nested": "trainer-1  | 2026-04-01T12:00:00Z [default0]:",
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")


def facts(log: Log) -> Log:
    """Without what tells where in the file it was."""
    return replace(log, path=Path(), run=1, runs=1, metrics=tuple(replace(metric, line=0) for metric in log.metrics))


def scored(metric):
    """All but the time it took, which a cut may take."""
    return metric.label, metric.kind, metric.loss, metric.bpb, metric.decimals


@pytest.fixture
def read(tmp_path):
    def from_bytes(data, name="some.log"):
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_logs(tmp_path / name)

    return from_bytes


@pytest.mark.parametrize("name", PREFIXES)
def test_prefixes_change_no_fact(read, name):
    (plain,) = read(log_1716(314))
    text = "".join(f"{PREFIXES[name]}{line}\n" for line in log_1716(314).splitlines())
    (found,) = read(text)
    assert facts(found) == facts(plain)
    assert (found.sizes.total, found.seed, found.train_seconds) == (15_994_170, 314, 588.031)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_change_no_fact(read, encoding):
    (plain,) = read(log_1716(42))
    (found,) = read(log_1716(42).replace("\n", "\r\n").encode(encoding))
    assert facts(found) == facts(plain)


def test_docker_json_lines(read):
    import json

    text = "".join(json.dumps({"log": f"{line}\n", "stream": "stdout"}) + "\n" for line in log_1716(42).splitlines())
    assert facts(read(text)[0]) == facts(read(log_1716(42))[0])


def test_progress_bars_end_in_the_line_that_counts(read):
    text = log_1716(42).replace("quantized_ttt val_loss", "ttt 10%|#   |\rttt 99%|####|\rquantized_ttt val_loss")
    assert facts(read(text)[0]) == facts(read(log_1716(42))[0])


def test_a_label_of_seeds_is_no_rank(read):
    """Only a few lines begin with a number and a colon: it is theirs."""
    lines, _ = read_lines(f"{log_1716(42)}42: done\n314: done\n".encode())
    assert [line.text for line in lines[-2:]] == ["42: done", "314: done"]


def test_ranks_that_say_the_same_are_one_run_and_others_are_named(read):
    lines = log_1716(42).splitlines()
    same = "".join(f"[default{rank}]:{line}\n" for line in lines for rank in (1, 0, 2))
    assert facts(read(same)[0]) == facts(read(log_1716(42))[0])
    (other,) = read(same + "[default2]:quantized_ttt val_loss:2.1 val_bpb:1.0\n")
    assert [each.text for each in other.unread] == ["quantized_ttt val_loss:2.1 val_bpb:1.0"]
    assert {finding.rule: finding.level for finding in check_log(other)}["log.headline"] == "unknown"


def test_runs_of_one_file_keep_their_facts(read):
    found = read(log_1716(42) + log_1716(999).partition("stopping_early")[0] + log_1716(314))
    assert [(log.seed, log.killed, log.sizes.total) for log in found] == [
        (42, False, 15_991_203),
        (999, True, None),
        (314, False, 15_994_170),
    ]
    assert facts(found[2]) == facts(read(log_1716(314))[0])
    with pytest.raises(InputError, match="was killed in training at step 4403"):
        headline(found[1])


def test_a_second_run_without_settings_is_known_by_its_steps(read, tmp_path):
    text = "step:0/9 val_loss:2.0 val_bpb:1.3\nstep:5/9 val_loss:2.0 val_bpb:1.2\n"
    found = read(text * 2 + "step:9/9 val_loss:2.0 val_bpb:1.1\nquantized val_loss:2.0 val_bpb:1.12\n")
    assert [log.killed for log in found] == [True, False]
    (tmp_path / "two.log").write_text(log_1716(42) + log_1716(314))
    with pytest.raises(InputError, match="2 runs with a score"):
        read_log(tmp_path / "two.log")


def test_a_script_printed_again_begins_again(read):
    source = "import os\nimport sys\nimport math\nimport json\ndef main():\n    pass\nmain_guard = 1\n"
    found = read(source + log_1716(42) + source + log_1716(314))
    assert [log.seed for log in found] == [42, 314]
    assert all(len(log.code_sha256) == 64 for log in found)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_decorated_log_gives_its_facts_or_names_what_it_lost(tmp_path_factory, data):
    """Any prefix, encoding, ranks, runs in front, and a cut anywhere."""
    path = tmp_path_factory.mktemp("decorated") / "run.log"
    seed = data.draw(st.sampled_from((42, 314, 999)), label="seed")
    path.write_text(log_1716(seed))
    plain = read_log(path)
    before = data.draw(st.lists(st.tuples(st.sampled_from((42, 314, 999)), st.booleans()), max_size=2), label="before")
    earlier = [log_1716(one).partition("gptq")[0] * killed or log_1716(one) for one, killed in before]
    killed = ["0/20000 val_loss: 9.0 val_bpb: 3.4\n400/20000 val_loss: 4.0 val_bpb: 1.6\n" * one for _, one in before]
    prefix = PREFIXES[data.draw(st.sampled_from(sorted(PREFIXES)), label="prefix")]
    ranks = data.draw(st.integers(1, 3), label="ranks") if prefix.startswith("[default") else 1
    text = "".join(map("".join, zip(earlier, killed, strict=True))) + log_1716(seed)
    lines = (
        [f"{prefix.replace('0', str(rank))}{line}" for line in text.splitlines() for rank in reversed(range(ranks))]
        if ranks > 1
        else [f"{prefix}{line}" for line in text.splitlines()]
    )
    whole = "\n".join(lines) + "\n"
    size = len(whole) - data.draw(st.one_of(st.just(0), st.integers(0, len(whole) // (len(before) + 1))), label="cut")
    path.write_bytes(whole[:size].encode(data.draw(st.sampled_from(ENCODINGS), label="encoding")))
    try:
        logs = read_logs(path)
    except InputError:
        assert size < len(whole)
        return
    assert [log.seed for log in logs[:-1]] == [one for one, _ in before][: len(logs) - 1]
    assert [log.killed for log in logs[:-1]] == [killed for _, killed in before][: len(logs) - 1]
    if size == len(whole):
        assert len(logs) == len(before) + 1
        assert facts(logs[-1]) == facts(plain)
        return
    if len(logs) <= len(before):
        return  # the cut took the last run
    last = facts(logs[-1])
    assert last.seed in (plain.seed, None)
    assert [scored(each) for each in plain.metrics[: len(last.metrics)]] == [scored(each) for each in last.metrics]
    assert not last.metrics or len(last.metrics) == len(plain.metrics) or last.metrics[-1].label != "quantized_ttt"
    assert last.sizes.total in (plain.sizes.total, None)
    assert last.targets in (plain.targets, None)
    assert last.steps in {None, 0, 4000, plain.steps}
