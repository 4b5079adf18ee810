import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

import verify
from codec.checkpoint import write_checkpoint
from codec.errors import CodecError, InputError
from tests.verify.conftest import BIGRAM
from verify import HeldOut, Settings, Submission, examine
from verify.code_bytes import count
from verify.verdict import Finding, Verdict

SETTINGS = Settings(length=16, stride=4, threads=1)
SOURCES = Path(verify.__file__).parent


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
        "eval": {"tokens": heldout.targets, "bytes": heldout.proof["bytes"], "stride": 4, "seq_len": 16},
    }


def test_documented_rules_are_the_rules_used():
    documented = re.findall(r"^## (\S+)$", (SOURCES.parent / "docs/rules.md").read_text(), re.MULTILINE)
    families = "|".join({rule.partition(".")[0] for rule in documented})
    named = re.compile(rf'"((?:{families})\.[a-z_-]+)"')  # also where a rule's name goes through a variable
    used = {rule for path in SOURCES.rglob("*.py") for rule in named.findall(path.read_text())}
    used |= {rule for path in SOURCES.rglob("*.py") for rule in re.findall(r'rule="([^"]+)"', path.read_text())}
    assert sorted(used) == sorted(documented)


def test_an_honest_submission_passes_everything(write_submission, heldout, bigram_nats, table, tmp_path):
    folder = write_submission()
    folder = write_submission(claims=claims(folder, bigram_nats, heldout))
    write_checkpoint(tmp_path / "float.safetensors", {"table": table}, {})
    verdict = examine(Submission.open(folder), heldout, SETTINGS, checkpoint=tmp_path / "float.safetensors")
    assert set(levels(verdict).values()) == {"pass"}
    assert (verdict.verdict, verdict.exit_code, verdict.penalty) == ("pass", 0, 0.0)
    documented = (SOURCES.parent / "docs/rules.md").read_text()
    assert all(f"## {rule}\n" in documented for rule in levels(verdict))
    assert set(verdict.to_dict()) == {"verdict", "findings", "bytes", "scores", "float_bpb", "penalty"}


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
    folder = write_submission(renamed, meta={}, claims={"val_bpb": 1.5, "eval": {"stride": 4}})
    part = HeldOut.read([data / "text_val_000000.bin"], data / "small.model", 50)
    verdict = examine(Submission.open(folder), part, SETTINGS)
    assert {rule for rule, level in levels(verdict).items() if level == "unknown"} == {
        "claims.bytes",
        "claims.hashes",
        "claims.score",
        "artifact.tokenizer",
        "reload.state",
    }
    assert verdict.verdict == "pass"
    assert "PARTIAL" in message(verdict, "score.coverage")
    assert verdict.scores[0].tokens == 50


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
    ],
)
def test_unusable_claims_are_errors(write_submission, text, message):
    folder = write_submission()
    (folder / "submission.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Submission.open(folder)


def test_one_failure_decides(write_submission):
    folder = write_submission()
    counted = count(folder, folder / "model.bin", 1)
    passing = Finding(rule="a", level="pass", message="")
    for level, expected in (("pass", 0), ("warn", 0), ("unknown", 0), ("fail", 1)):
        other = Finding(rule="b", level=level, message="")
        assert Verdict(findings=(passing, other), bytes=counted, scores=()).exit_code == expected
