import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from codec.errors import CodecError, InputError
from codec.storage.checkpoint import write_checkpoint
from tests.verify.conftest import BIGRAM
from tests.verify.measured import FACTS, SCORE, claiming
from tests.verify.records import log_1716
from verify import HeldOut, Settings, Submission, examine
from verify.claims.log_reader import read_log
from verify.finding import Finding
from verify.folder_rules import check_claimed_bytes, check_claimed_hashes, check_settings, compare_files
from verify.run_rules import check_claimed_score
from verify.submission import run_settings
from verify.submission.byte_count import count
from verify.verdict import Verdict

SETTINGS = Settings(length=16, stride=4, threads=1)
OF_ROOT = set() if os.getuid() else {"sandbox.missing"}  # the kernel limits no thread of root


def levels(verdict):
    return {finding.rule: finding.level for finding in verdict.findings}


def message(verdict, rule):
    return next(finding.message for finding in verdict.findings if finding.rule == rule)


def claims(folder, nats, heldout):
    code, model = ((folder / name).read_bytes() for name in ("train_gpt.py", "model.bin"))
    return {
        "bytes_total": str(len(code) + len(model)),
        "bytes_code": len(code),
        "bytes_model": len(model),
        "artifact_sha256": hashlib.sha256(model).hexdigest(),
        "script_sha256": hashlib.sha256(code).hexdigest(),
        "val_bpb": nats / np.log(2) / heldout.proof["bytes"],
        "eval": {"L": 16, "S": 4, "n_tokens": heldout.targets, "n_bytes": heldout.proof["bytes"]},
    }


def test_an_honest_submission_passes_everything(write_submission, heldout, bigram_nats, table, tmp_path):
    folder = write_submission()
    folder = write_submission(claims=claims(folder, bigram_nats, heldout))
    write_checkpoint(tmp_path / "float.safetensors", {"table": table}, {})
    verdict = examine(Submission.open(folder), heldout, SETTINGS, checkpoint=tmp_path / "float.safetensors")
    assert {rule for rule, level in levels(verdict).items() if level != "pass"} == OF_ROOT | {"log.headline"}
    assert (verdict.verdict, verdict.exit_code, verdict.penalty) == ("pass", 0, 0.0)
    assert verdict.not_stated == ("log.headline",)  # there is no log
    assert set(verdict.undecided) == OF_ROOT
    assert len(verdict.checked) == len(levels(verdict)) - 1 - len(OF_ROOT)
    assert set(verdict.to_dict()) == {
        *("verdict", "checked", "not_stated", "undecided", "warned", "failed"),
        *("findings", "bytes", "scores", "float_bpb", "penalty"),
    }


def test_a_dishonest_submission_fails_each_rule(write_submission, heldout, bigram_nats):
    """Weights that are not the artifact's, a better score, fewer bytes, another hash, an extra file, over the cap."""
    folder = write_submission(BIGRAM.replace('(file.read())["table"]', '(file.read())["table"] * 0.5'))
    lies = claims(folder, bigram_nats * 0.99, heldout) | {"bytes_total": 1000, "artifact_sha256": "0" * 64}
    folder = write_submission(BIGRAM.replace('(file.read())["table"]', '(file.read())["table"] * 0.5'), claims=lies)
    (folder / "cache.npz").write_bytes(b"x")
    verdict = examine(Submission.open(folder), heldout, SETTINGS, cap=5000)
    assert (verdict.verdict, verdict.exit_code) == ("fail", 1)
    assert {rule for rule, level in levels(verdict).items() if level == "fail"} == {
        "bytes.cap",
        "claims.bytes",
        "claims.hashes",
        "claims.score",
        "reload.state",
    }
    assert levels(verdict)["folder.contents"] == "warn"
    over = verdict.bytes.judged_total - 5000
    assert f"{over:,} too many" in message(verdict, "bytes.cap")
    assert "bytes_total 1,000" in message(verdict, "claims.bytes")
    assert "cache.npz" in message(verdict, "folder.contents")
    assert "`table`" in message(verdict, "reload.state")


def test_what_cannot_be_decided_is_unknown(write_submission, data, heldout):
    """No claims, no tokenizer in the artifact, weights under another name, part of the text."""
    renamed = BIGRAM.replace("self.table", "self.weights")
    folder = write_submission(renamed, meta={}, claims={"val_bpb": 1.5, "eval": {"S": 4}})
    part = HeldOut.read([data / "text_val_000000.bin"], data / "small.model", 50)
    verdict = examine(Submission.open(folder), part, SETTINGS)
    assert {rule for rule, level in levels(verdict).items() if level == "unknown"} == {
        "claims.score",
        "artifact.tokenizer",
        "reload.state",
        *OF_ROOT,
    }
    assert verdict.not_stated == ("claims.bytes", "claims.hashes", "log.headline")
    assert verdict.verdict == "pass"
    assert "PARTIAL" in message(verdict, "score.coverage")
    assert verdict.scores[0].tokens == 50


@pytest.mark.parametrize(
    ("claimed", "how", "level"),
    [
        (1.19, None, "pass"),
        (1.1901234, {"L": 16, "S": 4, "n_tokens": 179, "mode": "final_int6_sliding_window"}, "pass"),
        (1.1901234, {"L": 16, "S": None, "ttt": None}, "pass"),
        (0.5, None, "warn"),
        (0.5, {"L": 16, "S": 4}, "warn"),
        (0.5, {"L": 16, "S": 4, "n_tokens": 179}, "fail"),
        (1.3, {"L": 16, "S": 4, "n_tokens": 179}, "fail"),
        (1.3, "sliding", "unknown"),
        (0.5, {"L": 16, "S": 8, "n_tokens": 179}, "warn"),
        (1.3, {"L": 16, "S": 8, "n_tokens": 179}, "unknown"),
        (0.5, {"L": 16, "S": 4, "n_tokens": 1790}, "unknown"),
        (0.5, {"L": 16, "S": 4, "n_tokens": 179, "mode": "legal_ttt"}, "warn"),
        (1.3, {"L": 16, "S": 4, "n_tokens": 179, "mode": "legal_ttt"}, "unknown"),
        (1, None, "warn"),
        (float("nan"), {"L": float("inf")}, "not stated"),
        (-1.0, None, "not stated"),
        (None, {"L": 16, "S": 4, "n_tokens": 179}, "not stated"),
        ("1.1901", None, "pass"),
    ],
)
def test_a_claimed_score(claimed, how, level):
    """Measured: 1.1901234 bpb.  A better number fails if it is said to be of the same evaluation, else it warns."""
    score = replace(SCORE, nats=1.1901234 * np.log(2) * SCORE.bytes)
    measured = replace(FACTS, packed=replace(FACTS.packed, score=score))
    finding = check_claimed_score(claiming({"val_bpb": claimed, "eval": how}, measured))
    assert finding.level == level
    json.dumps(finding.evidence, allow_nan=False)


@pytest.mark.parametrize(
    ("claimed", "more", "level"),
    [
        (1.1, {"L": 16, "S": 4, "n_tokens": 179}, "pass"),
        (0.5, {"L": 16, "S": 4, "n_tokens": 179}, "fail"),
        (1.19, {"L": 16, "S": 4, "n_tokens": 179}, "fail"),
        (0.5, {"L": 16, "S": 4, "n_tokens": 179, "ttt": {"epochs": 3}}, "fail"),
        (0.5, {"L": 16, "S": 4, "n_tokens": 179, "ttt": {"epochs": 9}}, "warn"),
        (0.5, {}, "warn"),
    ],
)
def test_a_claimed_score_of_an_adaptive_mode_that_was_run(claimed, more, level):
    """Measured: 1.1 bpb by ttt, 1.19 by sliding."""
    by_ttt = replace(SCORE, scorer="ttt", nats=1.1 * np.log(2) * SCORE.bytes)
    measured = replace(FACTS, adapted=(replace(FACTS.packed, score=by_ttt),))
    finding = check_claimed_score(claiming({"val_bpb": claimed, "eval": {"mode": "ttt", **more}}, measured))
    assert (finding.level, finding.evidence["measured"]) == (level, pytest.approx(1.1))


@pytest.mark.parametrize(("count_", "length", "level"), [(3, 10, "pass"), (129, 3, "fail"), (1, 4096, "fail")])
@pytest.mark.parametrize("own_load", [False, True])
def test_settings_are_few_and_short(count_, length, own_load, level):
    settings = {f"A{number}": "x" * length for number in range(count_)}
    folder = replace(FACTS.folder, environment=settings, stated_in="README.md", own_load=own_load)
    finding = check_settings(replace(FACTS, folder=folder))
    assert (finding.level, finding.evidence["settings"]) == (level, count_)
    assert ("do not reach" in finding.message) == (own_load and level == "pass")
    assert check_settings(FACTS) is None


def test_sizes_and_hashes_that_are_no_numbers_or_text():
    nothing = {"bytes_total": float("inf"), "bytes_model": float("nan"), "artifact_sha256": float("nan")}
    finding = check_claimed_bytes(claiming(nothing))
    assert finding.level == "not stated"
    assert "no number in bytes_total, bytes_model" in finding.message
    hashes = check_claimed_hashes(claiming(nothing))
    assert hashes.level == "fail"
    json.dumps([finding.evidence, hashes.evidence], allow_nan=False)


def test_things_that_do_not_belong_together_are_errors(write_submission, heldout, tmp_path):
    folder = write_submission(meta={"config": {"seq_len": 16}, "tokenizer_sha256": "1234" * 16})
    with pytest.raises(InputError, match="trained with tokenizer 123412341234"):
        examine(Submission.open(folder), heldout, SETTINGS)
    subject = Submission.open(write_submission())
    write_checkpoint(tmp_path / "other.safetensors", {"table": np.zeros((3, 3), np.float32)}, {})
    with pytest.raises(InputError, match="1 tensors differ in name or shape, first `table`"):
        examine(subject, heldout, SETTINGS, checkpoint=tmp_path / "other.safetensors")


def test_penalty_is_packed_minus_float(write_submission, heldout, bigram_nats, table, tmp_path):
    folder = write_submission(tensors={"table": table + np.float32(0.5) * np.sign(table)})
    write_checkpoint(tmp_path / "float.safetensors", {"table": table}, {})
    verdict = examine(Submission.open(folder), heldout, SETTINGS, checkpoint=tmp_path / "float.safetensors")
    assert verdict.float_bpb == pytest.approx(bigram_nats / np.log(2) / heldout.proof["bytes"], rel=1e-6)
    assert verdict.penalty == verdict.scores[0].bpb - verdict.float_bpb != 0


@pytest.mark.parametrize(
    "damage", [lambda blob: blob[:-9], lambda blob: b"x" * 99, lambda blob: blob[:300] + b"\0\0" + blob[302:]]
)
def test_damaged_artifacts_are_errors(write_submission, damage):
    folder = write_submission()
    (folder / "model.bin").write_bytes(damage((folder / "model.bin").read_bytes()))
    with pytest.raises(CodecError) as error:
        Submission.open(folder)
    assert error.value.where.endswith("model.bin")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"artifact": "../secret"}', "name of a file in the folder"),
        ('{"artifact": "gone.bin"}', "no such file"),
        (r'{"artifact": "a\u0000b"}', r"a\?b: cannot be read .*null"),
        (r'{"artifact": "a\ud800b"}', r"a\?b: cannot be read"),
    ],
)
def test_unusable_claims_are_errors(write_submission, text, message):
    folder = write_submission()
    (folder / "submission.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Submission.open(folder)


def test_a_folder_or_closed_file_beside_the_readme_is_no_traceback(write_submission, monkeypatch):
    folder = write_submission()
    (folder / "notes.md").mkdir()
    assert Submission.open(folder).environment == {}
    (folder / "closed.md").touch()

    def refused(path, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_settings.Path, "open", refused)
    with pytest.raises(InputError, match=r"closed.md: cannot be read \(Permission denied\)"):
        run_settings.settings(folder)


@pytest.mark.parametrize("name", ["model.bin", "train_gpt.py", "README.md", "kernel.so"])
def test_sparse_files_are_not_read(write_submission, name):
    folder = write_submission()
    with (folder / name).open("ab") as file:
        file.truncate(8 * 10**12)
    with pytest.raises(InputError, match=f"{name}: has 8,000,000,000,000 bytes, a submission's files have at most"):
        Submission.open(folder)


def test_a_sparse_artifact_elsewhere_is_not_read(write_submission, tmp_path):
    with (tmp_path / "weights.ptz").open("wb") as file:
        file.truncate(2 * 10**9)
    with pytest.raises(InputError, match=r"weights\.ptz: has 2,000,000,000 bytes, at most 1,073,741,824 are read"):
        Submission.open(write_submission(), artifact=tmp_path / "weights.ptz")


def test_one_failure_decides(write_submission):
    folder = write_submission()
    counted = count(folder, folder / "model.bin", 1)
    passing = Finding(rule="bytes.cap", level="pass", message="")
    for level, expected in (("pass", 0), ("warn", 0), ("unknown", 0), ("not stated", 0), ("fail", 1)):
        other = Finding(rule="log.bytes", level=level, message="")
        assert Verdict(findings=(passing, other), bytes=counted, scores=()).exit_code == expected


@pytest.fixture
def logs(tmp_path):
    """Of seeds 42 and 314: 18,097 bytes of code, and models of 15,973,106 and 15,976,073 bytes."""
    for seed in (42, 314):
        (tmp_path / f"train_seed{seed}.log").write_text(log_1716(seed))
    return [read_log(tmp_path / f"train_seed{seed}.log") for seed in (42, 314)]


@pytest.mark.parametrize(
    ("code", "artifact", "seed", "level", "words"),
    [
        (18_097, 15_973_106, 42, "pass", "the artifact has the 15,973,106 bytes that the log of its seed 42 counts"),
        (18_097, 15_976_073, None, "pass", "that train_seed314.log counts"),
        (18_097, 15_973_106, 314, "fail", "15,973,106 bytes, the log of its seed 314 counts 15,976,073"),
        (18_097, 15_973_106, 7, "fail", "said to be of seed 7, of which there is no log"),
        (18_097, 1000, None, "warn", "the artifact has 1,000 bytes, as many as none of the logs counts"),
        (18_097, None, None, "unknown", "the sizes of models are what the logs say"),
        (23_927, 15_973_106, 42, "warn", "the code has 23,927 bytes, the logs count 18,097"),
        (23_928, 15_973_106, 42, "fail", "train_seed314.log makes 16,000,001 bytes, 1 over the cap of 16,000,000"),
    ],
)
def test_files_are_held_against_the_sizes_of_logs(logs, code, artifact, seed, level, words):
    found = compare_files(logs, code, artifact, seed, 16_000_000)
    assert (found.level, words in found.message) == (level, True), found.message


def test_logs_without_sizes_say_nothing_of_files(logs):
    nothing = [replace(log, sizes=replace(log.sizes, model=None)) for log in logs]
    assert compare_files(nothing, 1, 1, 42, 10) is None


@pytest.mark.parametrize(
    ("claims", "level"),
    [
        (
            {"artifact_seed": 42, "seed_results": {"42": {"val_bpb": SCORE.bpb}, "7": {"val_bpb": SCORE.bpb + 1}}},
            "pass",
        ),
        ({"artifact_seed": 42, "seed_results": {"42": {"val_bpb": SCORE.bpb}}}, "fail"),  # val_bpb is no mean of it
        ({"artifact_seed": 42, "seed_results": {"42": {"val_bpb": SCORE.bpb + 0.01}}}, "fail"),
        (
            {"artifact_seed": 42, "seed_results": {"7": {"val_bpb": SCORE.bpb}}},
            "fail",
        ),  # nothing of 42: the mean counts
        ({"artifact_seed": "42", "seed_results": {"42": {"val_bpb": SCORE.bpb}}}, "fail"),
        ({"seed_results": {"42": {"val_bpb": SCORE.bpb}}}, "fail"),
    ],
)
def test_the_score_of_a_mean_is_that_of_the_artifacts_seed(claims, level):
    how = {"L": 16, "S": 4, "n_tokens": SCORE.tokens}
    found = check_claimed_score(claiming({"val_bpb": SCORE.bpb + 0.5, "eval": how, **claims}))
    assert (found.level, "whose artifact this is" in found.message) == (
        level,
        "42" in claims["seed_results"] and claims.get("artifact_seed") == 42,
    )
