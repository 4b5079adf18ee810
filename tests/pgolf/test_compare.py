"""`pgolf compare` as a user runs it, on published figures and on runs of our own trainer."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from codec.storage.token_shards import shard_bytes
from pgolf.__main__ import main
from tests.verify.records import LOG_339, STATED_1716, log_1716, write_1176, write_1716
from trainer.presets.catalog import PRESETS
from trainer.run.loop import train


@pytest.fixture
def command(capsys):
    """Run `pgolf compare` in this process -> (exit code, stdout, stderr)."""

    def run(*arguments):
        code = main(["compare", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_1716_in_json(command, tmp_path):
    code, out, err = command(write_1716(tmp_path / "1716"), "--against", 1.081, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [run["total_bytes"] for run in found["runs"]] == [15_991_203, 15_994_170, 15_996_103]
    assert [run["eval_seconds"] for run in found["runs"]] == pytest.approx([480.408, 479.495, 477.724])
    assert {"name", "bpb", "loss", "seed", "label"} <= set(found["runs"][0])
    assert found["mean_bpb"] == pytest.approx(1.07881679, abs=5e-9)
    assert found["sd_bpb"] == pytest.approx(1.4293e-4, abs=5e-9)
    assert found["against"] == 1.081
    assert found["threshold_bpb"] == pytest.approx(1.0790642, abs=5e-8)
    assert (round(found["z"], 3), round(found["p_z"], 5)) == (-2.998, 0.00136)
    assert (round(found["t"], 3), round(found["p_t"], 4)) == (-2.998, 0.0478)
    assert found["welch_t"] is found["welch_df"] is found["p_welch"] is None
    assert [test["significant"] for test in found["tests"] if test["shifted"]] == [True, False]


@pytest.mark.parametrize("against", [("1493",), ("#1493",), ("1.08079", "1.08103", "1.08118")])
def test_against_seeds_gives_welch(command, tmp_path, against):
    options = [part for each in against for part in ("--against", each)]
    found = json.loads(command(write_1716(tmp_path / "1716"), *options, "--json")[1])
    assert (round(found["welch_t"], 3), round(found["welch_df"], 2), round(found["p_welch"], 4)) == (
        -1.762,
        3.65,
        0.0798,
    )


def test_against_other_logs_and_a_submission_json(command, tmp_path):
    ours, theirs = write_1716(tmp_path / "a"), write_1716(tmp_path / "b")
    for against in (theirs, theirs / "submission.json"):
        found = json.loads(command(ours, "--against", against, "--json")[1])
        assert found["against"] == found["mean_bpb"]
        assert found["p_welch"] > 0.99  # the same runs are not better than themselves by 0.005 nats
        plain = next(test for test in found["tests"] if (test["test"], test["shifted"]) == ("welch", False))
        assert plain["p"] == pytest.approx(0.5)


def test_tables_of_1716(command, tmp_path):
    code, out, _ = command(write_1716(tmp_path / "1716"), "--against", "1493")
    assert code == 0
    lines = out.splitlines()
    row = next(line for line in lines if line.startswith("train_seed42.log")).split()
    assert row[1:] == [
        "42",
        "quantized_ttt",
        "1.07886574",
        "2.78662485",
        "18,097",
        "15,973,106",
        "15,991,203",
        "+8,797",
        "588.1",
        "480.4",
    ]
    text = " ".join(out.split())
    assert "mean 1.07881679 2.78649843" in text
    assert "1.07906421" in text
    assert "anti-conservative at n = 3 0.005 nats -2.998 - 0.00136 yes" in text
    assert "one-sample Student t 0.005 nats -2.998 2.000 0.0478 no" in text
    assert "is the one-sample z test with the shift" in text
    assert max(map(len, lines)) <= 130


def test_1176_is_refused_and_339_is_over_the_cap(command, tmp_path):
    code, out, _ = command(write_1176(tmp_path / "1176"), "--against", "1019")
    text = " ".join(out.split())
    assert code == 1
    assert "`final_slot` 1.09625166 is refused: SLOT" in text
    assert "the last legal score is `legal_ttt` 1.11226855 (all 3 logs)" in text
    assert "evaluation 886.1 of 600 s, needed for `final_slot`: 764.7" in text
    (tmp_path / "train_seed1337.log").write_text(LOG_339)
    code, out, _ = command(tmp_path / "train_seed1337.log")
    assert code == 1
    assert "16,170,051 bytes, 170,051 over the cap of 16,000,000" in " ".join(out.split())
    assert command(tmp_path / "train_seed1337.log", "--cap", 17_000_000)[0] == 0


def test_write_makes_a_submission_json_that_holds(command, tmp_path):
    folder = write_1716(tmp_path / "1716")
    code, _, _ = command(folder, "--against", 1.081, "--write", folder / "submission.json")
    assert code == 0
    written = json.loads((folder / "submission.json").read_text())
    assert written["author"] == json.loads(STATED_1716)["author"]
    assert written["seed_results"]["999"]["val_bpb"] == 1.07865582
    code, out, _ = command(folder, "--against", 1.081, "--json")
    findings = {finding["rule"]: finding["level"] for finding in json.loads(out)["findings"]}
    assert (code, findings["claims.mean"], findings["log.headline"]) == (0, "pass", "pass")


def test_a_refused_write_leaves_the_old_file(command, tmp_path):
    target = tmp_path / "submission.json"
    target.write_text("precious")
    (tmp_path / "run.log").write_text(LOG_339)
    code, out, err = command(tmp_path / "run.log", "--write", target)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "names no seed" in err
    assert target.read_text() == "precious"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["run.log", "submission.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("missing.log",), 3, "no such file"),
        (("empty.log",), 3, "is empty"),
        (("train_seed42.log", "--against", "1177"), 2, "records: 162, 549"),
        (("train_seed42.log", "--against", "best"), 2, "neither a mean"),
        (("train_seed42.log", "--cap", "0"), 2, "cap"),
        ((), 2, "RUN"),
    ],
)
def test_mistakes_are_one_sentence(command, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train_seed42.log").write_text(log_1716(42))
    (tmp_path / "empty.log").touch()
    found, out, err = command(*arguments)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert words in err


def test_one_run_has_no_deviation_and_no_test(command, tmp_path):
    (tmp_path / "train_seed42.log").write_text(log_1716(42))
    found = json.loads(command(tmp_path / "train_seed42.log", "--against", 1.081, "--json")[1])
    assert found["sd_bpb"] is found["z"] is found["p_t"] is None
    assert found["tests"] == []
    assert found["margin_bpb"] == pytest.approx(1.07906421 - 1.07886574, abs=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of the preset `tiny`, six steps each, on random ids: what our trainer logs."""
    data = tmp_path_factory.mktemp("data")
    ids = np.random.default_rng(0).integers(0, 256, 5000)
    (data / "x_train_0.bin").write_bytes(shard_bytes(ids))
    (data / "x.model").write_bytes(b"stands for a tokenizer")
    preset = replace(PRESETS["tiny"], train=replace(PRESETS["tiny"].train, val_every=2))

    def evaluate(model):
        batch = torch.from_numpy(ids[:65]).long()
        loss = model(batch[None, :-1], batch[None, 1:]).item()
        return loss, loss / math.log(2) / 2  # two bytes per token

    def run(seed):
        out = tmp_path_factory.mktemp("runs") / f"run{seed}"
        return train(preset, data, out, evaluate=evaluate, seed=seed, steps=6, threads=1, device="cpu")

    return {seed: run(seed) for seed in (1, 2)}


def test_logs_of_our_own_trainer(command, trained):
    logs = [result.checkpoint.parent / "train.log" for result in trained.values()]
    code, out, err = command(*logs, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [run["seed"] for run in found["runs"]] == [1, 2]
    for run, result in zip(found["runs"], trained.values(), strict=True):
        assert run["bpb"] == pytest.approx(result.val_bpb, abs=5e-9)
        assert run["loss"] == pytest.approx(result.val_loss, abs=5e-9)
        assert run["label"] == "step:6/6"
        assert run["train_seconds"] == pytest.approx(result.seconds, abs=6e-4)
    findings = {finding["rule"]: finding for finding in found["findings"]}
    assert findings["log.headline"]["level"] == "not stated"
    assert "float weights" in findings["log.headline"]["message"]
    assert findings["log.settings"]["level"] == "pass"
    assert findings["log.settings"]["evidence"]["code_sha256"] != []
