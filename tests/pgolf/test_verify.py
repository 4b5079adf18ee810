# ruff: noqa: F401, F811 (fixtures of tests/verify are imported by name)
import base64
import hashlib
import json
import lzma
import os
import random
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.encoder import encode
from codec.storage.checkpoint import write_checkpoint
from packager.script.wrapper import wrap
from pgolf.__main__ import main
from tests.verify.conftest import (
    BIGRAM,
    bigram_nats,
    data,
    heldout,
    table,
    train_tokenizer,
    wrapped,
    write_submission,
)
from tests.verify.test_adaptation import CAUSAL, causal_tensors
from tests.verify.test_seed_adapter import LENGTHS, README, SEEDS, SMALL, script, written
from tests.verify.test_source_layers import xz
from verify.submission_gallery.revealing import script as revealing_script

FAST = ("--threads", "1", "--stride", "4")


@pytest.fixture
def command(data, capsys):
    """Run `pgolf verify` in this process -> (exit code, stdout, stderr)."""

    def run(*arguments, folder=None):
        code = main(["verify", *map(str, arguments), "--data", str(folder or data), *FAST])
        return code, *capsys.readouterr()

    return run


def test_json_has_the_documented_keys(command, write_submission, heldout, bigram_nats, table, tmp_path):
    write_checkpoint(tmp_path / "float.safetensors", {"table": table}, {})
    more = ("--checkpoint", tmp_path / "float.safetensors", "--proof", 20, "--strict", 20)
    code, out, err = command(write_submission(), "--json", *more)
    found = json.loads(out)
    assert (code, err, found["verdict"], found["partial"]) == (0, "", "pass", False)
    assert set(found["findings"][0]) == {"rule", "level", "message", "evidence"}
    assert set(found["bytes"]) == {
        "main_file",
        "import_closure",
        "all_code",
        "computed_wrapped",
        "artifact",
        "judged_total",
        "cap",
        "judged",
        "why",
        "settings",
        "names",
    }
    assert {"scorer", "nats", "tokens", "bytes", "loss", "bpb", "seconds"} <= set(found["scores"][0])
    assert found["scores"][0]["nats"] == pytest.approx(bigram_nats, rel=1e-6)
    assert found["float_bpb"] == found["scores"][0]["bpb"]
    assert found["not_stated"] == ["claims.bytes", "claims.hashes", "log.headline", "claims.score"]
    assert set(found["undecided"]) <= {"sandbox.missing"}
    assert found["warned"] == found["failed"] == []
    assert len(found["checked"]) + len(found["undecided"]) + 4 == len(found["findings"])
    coverage = {finding["rule"]: finding["evidence"].get("coverage", {}) for finding in found["findings"]}
    assert coverage["score.strict"]["targets"] == 20
    assert set(coverage["score.prefix"]["power"]) == {
        "cuts", "worth_nats_per_token", "probability", "share", "nats", "seen"
    }  # fmt: skip
    assert coverage["score.prefix"]["share"] > 0.2
    assert found["seq_len"] == 16
    targets = {"n_tokens": heldout.targets, "n_bytes": heldout.proof["bytes"]}
    assert found["eval"] == {"mode": "sliding", "L": 16, "S": 4, "ttt": None, **targets}


def test_the_table_ends_with_the_verdict(command, write_submission):
    code, out, _ = command(write_submission(), "--limit-tokens", 40)
    lines = out.strip().splitlines()
    assert code == 0
    assert lines[-1] == "verdict: pass"
    assert re.fullmatch(r"PARTIAL SCORE: the first 40 of \d+ targets", lines[-2])
    assert re.search(r"^pass +bytes\.cap ", out, re.MULTILINE)
    assert re.search(r"^not stated +claims\.bytes +submission\.json states no sizes$", out, re.MULTILINE)
    assert re.search(r"^checked: 1[23] rules, all hold$", out, re.MULTILINE)  # as root the sandbox is not whole
    assert "\nnot stated: claims.bytes, claims.hashes, log.headline, claims.score\n" in out


@pytest.mark.slow
def test_scores_side_by_side(command, write_submission, tmp_path):
    """Sliding comes first whatever is asked for, and is what claims and penalty are about."""
    tensors = causal_tensors()
    write_checkpoint(tmp_path / "float.safetensors", tensors, {})
    folder = write_submission(CAUSAL, tensors=tensors)
    more = ("--score", "ttt", "--score", "slot", "--score", "sliding", "--ttt-lr", 0.1, "--slot-lr", 0.05)
    code, out, err = command(folder, *more, "--json", "--checkpoint", tmp_path / "float.safetensors")
    found = json.loads(out)
    assert (code, err, found["verdict"]) == (0, "", "pass")
    assert [score["scorer"] for score in found["scores"]] == ["sliding", "ttt", "slot"]
    assert len({score["bpb"] for score in found["scores"]}) == 3
    assert len({(score["tokens"], score["bytes"], score["windows"]) for score in found["scores"]}) == 1
    assert found["float_bpb"] == found["scores"][0]["bpb"]
    assert found["penalty"] == 0
    assert found["adaptation"]["chunk"] == 16
    assert (found["adaptation"]["lr"], found["adaptation"]["slot_lr"]) == (0.1, 0.05)


def test_a_script_s_own_adaptation_counts(command, write_submission):
    """Scored beside the sliding score without being asked for; it is the one that `eval` describes."""
    code, out, err = command(write_submission(revealing_script("ngram_mixture")), "--limit-tokens", 100, "--json")
    found = json.loads(out)
    assert (code, err, found["verdict"]) == (0, "", "pass")
    assert [score["scorer"] for score in found["scores"]] == ["sliding", "own"]
    assert found["scores"][0]["bpb"] != found["scores"][1]["bpb"]
    stated = {"stretch": "window", "targets": None, "documents": False, "order": "stream"}
    assert (found["headline"], found["own"]) == ("own", stated)
    assert (found["eval"]["mode"], found["eval"]["ttt"]) == ("own", stated)
    assert "adaptation" not in found
    told = {finding["rule"]: finding["message"] for finding in found["findings"]}
    assert "windows, in the order of the text" in told["score.reveal"]
    assert "by `reveal`" in told["score.prefix"]


@pytest.mark.slow
def test_the_table_of_scores_has_gains(command, write_submission):
    code, out, _ = command(
        write_submission(CAUSAL, tensors=causal_tensors()), "--score", "slot", "--ttt-update", "muon"
    )
    assert code == 0
    assert re.search(r"^score +sliding +slot$", out, re.MULTILINE)
    bpb = [float(word) for word in re.search(r"^bpb +(\S+) +(\S+)$", out, re.MULTILINE).groups()]
    gain = float(re.search(r"^gain over sliding, bpb +([+-]\S+)$", out, re.MULTILINE)[1])
    assert gain == pytest.approx(bpb[0] - bpb[1], abs=2e-8)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--score", "slot"), 3, r"slot needs a model with .*; score it by sliding"),
        (("--score", "ttt", "--ttt-chunk", 8), 2, "chunks of 8 targets hold no sequence of 16"),
        (("--score", "ttt", "--ttt-freeze", 1), 2, "1 blocks are to be frozen, the model has 0"),
        (("--score", "both"), 2, "'both' is not one of"),
    ],
)
def test_scores_that_cannot_be_had(command, write_submission, options, code, words):
    got, out, err = command(write_submission(), *options)
    assert (got, out) == (code, "")
    assert re.search(words, err)
    assert "Traceback" not in err


@pytest.mark.slow
def test_adapting_lowers_bpb_on_web_text(pgolf, shared, tmp_path):
    """A cpu-demo model after 60 steps, on text it has not seen; measured: ttt 0.0037, slot 0.0016 bpb less."""
    data = tmp_path / "data"
    data.mkdir()
    tokens = shared / "data/tokens"
    os.symlink(tokens / "fineweb_train_000000.sp1024.1M.bin", data / "web_train_000000.bin")
    os.symlink(tokens / "fineweb_val_000000.head1M.sp1024.bin", data / "web_val_000000.bin")
    os.symlink(shared / "data/tokenizers/fineweb_1024_bpe.model", data / "web.model")
    run, folder = tmp_path / "run", tmp_path / "submission"
    for arguments in (
        ("train", "cpu-demo", "--data", data, "--steps", 60, "--threads", 1, "--limit-tokens", 500, "-o", run),
        ("pack", run / "checkpoint.safetensors", "--recipe", "pr162-small", "-o", folder),
    ):
        done = pgolf(*arguments)
        assert done.returncode == 0, done.stderr
    more = ("--score", "ttt", "--score", "slot", "--limit-tokens", 8192, "--threads", 1, "--json")
    done = pgolf("verify", folder, "--data", data, *more)
    sliding, ttt, slot = [score["bpb"] for score in json.loads(done.stdout)["scores"]]
    print(f"sliding {sliding:.4f}, ttt {ttt - sliding:+.4f}, slot {slot - sliding:+.4f} bpb")
    assert ttt < sliding - 0.002
    assert slot < sliding - 0.0008


def test_over_the_cap_exits_1(command, write_submission):
    code, out, _ = command(write_submission(), "--cap", 1000)
    assert code == 1
    assert re.search(r"fail +bytes\.cap .* too many", out)
    assert out.strip().endswith("verdict: fail")


def test_seq_len_overrides_the_artifact(command, write_submission):
    folder = write_submission(meta={})
    code, _, err = command(folder)
    assert code == 3
    assert "does not state config.seq_len; pass --seq-len N" in err
    code, out, _ = command(folder, "--seq-len", 8, "--json")
    assert (code, json.loads(out)["seq_len"]) == (0, 8)


def damaged(change):
    def apply(folder, data):
        path = folder / "model.bin"
        path.write_bytes(change(path.read_bytes()))

    return apply


def other_tokenizer(folder, data):
    (data / "small.model").unlink()
    train_tokenizer(data / "small.model", ("cat dog mat",) * 5, vocab_size=272)


def shard(change):
    def apply(folder, data):
        path = data / "text_val_000000.bin"
        path.write_bytes(change(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damaged(lambda blob: blob[:-5]), "model.bin: "),
        (damaged(lambda blob: blob[:200] + bytes([blob[200] ^ 1]) + blob[201:]), "model.bin: "),
        (damaged(lambda blob: b""), "is empty"),
        (lambda folder, data: (folder / "train_gpt.py").unlink(), "not a submission folder"),
        (lambda folder, data: (data / "small.model").write_bytes(b""), "not a SentencePiece model"),
        (other_tokenizer, "the tokenizer has 272 pieces"),
        (shard(lambda raw: raw[:-2]), "cut or damaged"),
        (shard(lambda raw: b"\1" + raw[1:]), "magic"),
        (shard(lambda raw: b""), "0 bytes"),
        (lambda folder, data: shutil.rmtree(data), "no such data folder"),
    ],
)
def test_bad_inputs_are_one_sentence_and_exit_3(command, write_submission, data, tmp_path, damage, words):
    copy = shutil.copytree(data, tmp_path / "data")
    folder = write_submission()
    damage(folder, copy)
    code, out, err = command(folder, folder=copy)
    assert (code, out) == (3, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert words in err


def test_usage_errors_exit_2(command, write_submission, capsys):
    assert command(write_submission(), "--limit-tokens", 0)[0] == 2
    assert main(["verify", str(write_submission()), *FAST]) == 2
    assert "--data is missing" in capsys.readouterr().err
    assert main(["verify", str(write_submission()), "--stride", "17", "--data", "."]) == 2
    assert "stride 17 with windows of 16" in capsys.readouterr().err


def test_a_failing_script_exits_3_with_json_error(command, write_submission):
    code, out, _ = command(write_submission("def load(path, device):\n    raise ValueError('no')\n"), "--json")
    error = json.loads(out)
    assert (code, error["exit_code"]) == (3, 3)
    assert "ValueError: no" in error["error"]["message"]


def test_nan_weights_are_named(command, write_submission, table):
    code, _, err = command(write_submission(tensors={"table": np.full_like(table, np.nan)}))
    assert code == 3
    assert "not finite" in err


def test_help_shows_an_example(pgolf):
    result = pgolf("verify", "--help")
    assert result.returncode == 0
    assert "pgolf verify out/demo/submission --data" in result.stdout


@pytest.fixture
def honest(write_submission, heldout, bigram_nats):
    """A submission that claims exactly what it is."""
    folder = write_submission()
    code, model = ((folder / name).read_bytes() for name in ("train_gpt.py", "model.bin"))
    how = {"mode": "sliding", "L": 16, "S": 4, "n_tokens": heldout.targets, "n_bytes": heldout.proof["bytes"]}
    claims = {
        "bytes_total": len(code) + len(model),
        "artifact_sha256": hashlib.sha256(model).hexdigest(),
        "script_sha256": hashlib.sha256(code).hexdigest(),
        "val_bpb": bigram_nats / np.log(2) / heldout.proof["bytes"],
        "eval": how,
    }
    (folder / "submission.json").write_text(json.dumps(claims))
    loss = bigram_nats / heldout.targets
    line = f"final_sliding_window_exact val_loss:{loss:.8f} val_bpb:{claims['val_bpb']:.8f} eval_time:9ms\n"
    (folder / "train.log").write_text("step:10/10 train_loss:3.0 train_time:60ms\n" + line)
    return folder


def test_what_is_claimed_truly_passes(command, honest):
    code, out, _ = command(honest, "--json")
    levels = {finding["rule"]: finding["level"] for finding in json.loads(out)["findings"]}
    assert (code, levels["claims.score"], levels["claims.hashes"], levels["log.headline"]) == (0, *["pass"] * 3)
    assert "fail" not in levels.values()


def edited(folder, **changes):
    path = folder / "submission.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def another_artifact(folder, table, heldout):
    meta = {"config": {"seq_len": 16}, "tokenizer_sha256": heldout.tokenizer_sha256}
    (folder / "model.bin").write_bytes(encode({"table": table[::-1]}, meta))


def another_artifact_with_its_hash(folder, table, heldout):
    """Only the score still tells."""
    another_artifact(folder, table, heldout)
    blob = (folder / "model.bin").read_bytes()
    total = len(blob) + (folder / "train_gpt.py").stat().st_size
    edited(folder, artifact_sha256=hashlib.sha256(blob).hexdigest(), bytes_total=total)


def better_numbers(folder, table, heldout):
    edited(folder, val_bpb=0.9, bytes_total=1000)


def better_log(folder, table, heldout):
    """The last score in the log is better than the one that submission.json states."""
    log = (folder / "train.log").read_text()
    (folder / "train.log").write_text(re.sub(r"val_bpb:\d+\.\d", "val_bpb:0.9", log))


def extra_code(folder, table, heldout):
    (folder / "helper.py").write_text("cache = {}\n")


@pytest.mark.parametrize(
    ("tamper", "rules"),
    [
        (another_artifact, {"claims.hashes", "claims.score"}),
        pytest.param(another_artifact_with_its_hash, {"claims.score"}, marks=pytest.mark.slow),
        pytest.param(
            better_numbers,
            {"claims.bytes", "claims.score", "claims.mean", "log.headline"},
            marks=pytest.mark.slow,
        ),
        (better_log, {"log.headline", "claims.mean"}),
        (extra_code, {"folder.contents"}),
    ],
)
def test_a_tampered_folder_fails_by_the_rule_it_breaks(command, honest, table, heldout, tamper, rules):
    tamper(honest, table, heldout)
    code, out, _ = command(honest, "--json")
    found = {finding["rule"]: finding for finding in json.loads(out)["findings"]}
    assert code == 1
    # A smaller artifact than claimed is no offence; its size differs by chance.
    assert {rule for rule, finding in found.items() if finding["level"] == "fail"} - {"claims.bytes"} == rules - {
        "claims.bytes"
    }
    assert all(found[rule]["level"] == "fail" for rule in rules)


@pytest.mark.slow
def test_extra_code_can_be_tolerated_by_name(command, honest):
    extra_code(honest, None, None)
    assert command(honest, "--extra", "helper.py")[0] == 0


def other_payload(folder):
    """The literal of another script under the honest first line; sizes alone would not tell."""
    honest, other = (folder / "train_gpt.py").read_text(), wrap("x = 1\n", {}).decode()
    literals = [text.split('b85decode("')[1].split('"')[0] for text in (honest, other)]
    (folder / "train_gpt.py").write_text(honest.replace(*literals))


def linked(folder):
    (folder / "model.bin").rename(folder.parent / "elsewhere.bin")
    (folder / "model.bin").symlink_to(folder.parent / "elsewhere.bin")


def pickled(folder):
    torch.save({"table": torch.zeros(3)}, folder / "model.bin")


def bomb(folder):
    packed = base64.b85encode(lzma.compress(random.Random(0).randbytes(300) + bytes(1 << 25))).decode()
    (folder / "train_gpt.py").write_text(f"import lzma, base64\nexec(lzma.decompress(base64.b85decode({packed!r})))\n")


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (other_payload, "its first line names"),
        (linked, "is a link or special file"),
        (pickled, "is torch.save's zip, not an artifact: opening one can run any code"),
        (
            lambda folder: (folder / "model.bin").write_bytes(b"\x80\x04\x95" + bytes(99)),
            "is a pickle, not an artifact",
        ),
        (bomb, "holds a literal of lzma data that expands beyond 16,777,216 bytes"),
    ],
)
def test_a_tampered_folder_that_cannot_be_judged_exits_3(command, honest, tamper, words):
    tamper(honest)
    code, out, err = command(honest)
    assert (code, out) == (3, "")
    assert err.startswith("Error: ")
    assert words in err
    assert err.count("\n") == 1


LOAD = "def load(path, device):\n    "


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("import socket; socket.create_connection(('127.0.0.1', 80))", 3, "train_gpt.py line 2: used the network"),
        ("open('{folder}/escaped', 'w')", 3, "train_gpt.py line 2: tried to write to {folder}/escaped"),
        pytest.param(
            "open('{val}', 'rb')",
            *(3, "PermissionError: [Errno 13] Permission denied: '{val}'"),
            marks=pytest.mark.slow,
        ),
        ("import time; time.sleep(600)", 1, "took longer than the time limit of 5 s"),
        pytest.param("bytearray(3 * 10**9)", 1, "asked for more memory than the limit of 2 GB", marks=pytest.mark.slow),
        pytest.param("import os; os.fork()", 3, "started a program (os.fork)", marks=pytest.mark.slow),
        pytest.param(
            "import os, time; [os.posix_fallocate(os.open(str(n), 66), 0, 2 * 10**8) for n in range(7)]; time.sleep(9)",
            *(1, "filled its scratch folder beyond"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_hostile_script_is_stopped_and_named(command, write_submission, data, tmp_path, code, exit_code, words):
    names = {"folder": tmp_path, "val": data / "text_val_000000.bin"}
    folder = write_submission(LOAD + code.format(**names))
    found, out, err = command(folder, "--memory-limit", 2, "--time-limit", 5 if "of 5 s" in words else 60)
    assert (found, out) == (exit_code, "")
    assert words.format(**names) in err
    assert err.count("\n") == 1
    assert not (tmp_path / "escaped").exists()


def record(folder, name, script):
    """A folder as records have it: wrapped script, README with the run command, blob of the script's own making."""
    folder.mkdir()
    (folder / "train_gpt.py").write_text(xz((SEEDS / f"{name}.py").read_text()))
    (folder / "README.md").write_text(README)
    written(script(name), folder)
    (folder / "submission.json").write_text(json.dumps({"val_bpb": "1.1", "seeds": [42], "bytes_total": 10**9}))
    return folder


def test_a_record_of_the_seed_family(command, script, tmp_path):
    folder = record(tmp_path / "record", "pr1176", script)
    code, out, _ = command(folder, "--json", "--env", "TTT_EPOCHS=1")
    found = json.loads(out)
    rules = {}
    for finding in found["findings"]:
        rules.setdefault(finding["rule"], []).append(finding)
    assert (code, found["seq_len"], found["bytes"]["judged"]) == (0, 16, "import_closure")
    assert rules["artifact.foreign"][0]["evidence"] == {"file": "final_model.int6.ptz", "looks_like": "xz data"}
    assert rules["reload.protocol"][0]["evidence"]["environment"] == {
        **SMALL,
        **LENGTHS,
        "TTT_EPOCHS": "1",
    }
    assert {"triage.val-training", "triage.scored-mask", "triage.environment"} <= rules.keys()
    assert rules["triage.scored-mask"][0]["evidence"]["file"] == "train_gpt.py unpacked"
    assert rules["sandbox.attempts"][0]["level"] == rules["score.coverage"][0]["level"] == "pass"


@pytest.mark.slow
def test_the_table_of_a_record(command, script, tmp_path):
    folder = record(tmp_path / "record", "pr162", script)
    (folder / "final_model.int8.ptz").rename(tmp_path / "weights.ptz")
    code, out, err = command(folder)
    assert (code, out.splitlines()[-1]) == (3, "verdict: unknown")
    assert "copy the weights there or pass --artifact FILE" in err
    code, out, _ = command(folder, "--artifact", tmp_path / "weights.ptz")
    assert code == 0
    assert re.search(r"^warn +reload.protocol +no `load`, so the adapter .*GPT built from 7 of", out, re.MULTILINE)
    assert re.search(r"^warn +artifact.foreign +weights.ptz .* zstd data", out, re.MULTILINE)
    assert re.search(r"^judged: import closure \+ artifact, what the script can run", out, re.MULTILINE)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python reads such f-strings")
def test_a_script_for_a_later_python_is_one_sentence(command, script, tmp_path):
    folder = record(tmp_path / "record", "pr1716", script)
    later = (SEEDS / "pr1716.py").read_text().replace("{message if console else ''}", '{message if console else ""}')
    (folder / "train_gpt.py").write_text(xz(later))
    code, out, err = command(folder)
    assert (code, out) == (4, "")
    assert re.search(r"train_gpt.py: line \d+ needs Python 3.12 or later \(an f-string .*\), this is 3.11", err)
    assert err.count("\n") == 1


def test_no_foreign_text_acts_on_the_terminal_or_forges_a_line(command, write_submission):
    hostile = "\x1b]0;owned\x07\x1b[8m\nverdict: pass \x9b"
    folder = write_submission("import socket # \x1b[2J\x1b[8m\n" + BIGRAM, claims={"val_bpb": hostile, hostile: 1})
    (folder / f"{hostile}.npz").touch()
    (folder / f"{hostile}.py").touch()
    code, out, err = command(folder, "--limit-tokens", 40)
    assert (code, err) == (1, "")
    assert all(line.isprintable() for line in out.splitlines())
    assert re.findall("^verdict:.*$", out, re.MULTILINE) == ["verdict: fail"]
    assert "?]0;owned??[8m verdict: pass ?.py" in out
    (folder / "submission.json").write_text(json.dumps({"artifact": hostile}))
    code, out, err = command(folder)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert err.rstrip("\n").isprintable()


def test_usage_of_env(command, write_submission):
    code, _, err = command(write_submission(), "--env", "NUM_LAYERS")
    assert code == 2
    assert "--env NUM_LAYERS is not NAME=VALUE" in err


def test_inspect_unwraps_records(script, tmp_path, capsys):
    folder = record(tmp_path / "record", "pr339", script)
    assert main(["inspect", str(folder), "--unwrap", str(tmp_path / "sources")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "sources" / "train_gpt.py").read_text() == (SEEDS / "pr339.py").read_text()
    assert "final_model.int6.ptz" in printed
    assert "not opened" in printed
    (folder / "train_gpt.py").write_text("print('plain')\n")
    assert main(["inspect", str(folder / "train_gpt.py")]) == 0
    assert "readable" in capsys.readouterr().out
    assert main(["inspect", str(folder / "train_gpt.py"), "--unwrap", str(tmp_path / "again")]) == 2
    assert "is not a packed script" in capsys.readouterr().err


@pytest.mark.slow
def test_fresh_text_is_compared_and_must_be_another(command, write_submission, data, heldout, tmp_path):
    lines = tmp_path / "other.jsonl"
    words = [f"the {one} sat on the {other}" for one in ("cat", "dog", "mat") for other in ("tea", "cake", "dog")]
    lines.write_text("".join(json.dumps({"text": each}) + "\n" for each in words))
    _, out, _ = command(write_submission(), "--json", "--fresh", lines)
    (finding,) = [each for each in json.loads(out)["findings"] if each["rule"] == "score.memorised"]
    assert set(finding["evidence"]["gap"]) >= {"fresh", "scored", "size", "reach", "documents", "confidence"}
    code, _, err = command(write_submission(), "--fresh", data / "text_val_000000.bin")
    assert (code, "documents in common with the scored one" in err) == (3, True)
