"""`pgolf verify` of a folder without artifact, as records are: what does not run is judged, and no more is claimed."""

import json

import pytest

SCRIPT = """
import helper

def train(val_tokens):
    return helper.run(val_tokens)
"""
LOG = """seed: 7
Serialized model int6+zlib: 15000000 bytes
Code size: 120 bytes
Total submission size int6+zlib: 15000120 bytes
final_int6_sliding_window_exact val_loss:2.00000000 val_bpb:1.20000000
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "helper.py").write_text("def run(tokens):\n    return tokens\n")
    (tmp_path / "train_gpt.py").write_text(SCRIPT)
    (tmp_path / "train.log").write_text(LOG)
    (tmp_path / "submission.json").write_text(json.dumps({"val_bpb": 1.2, "bytes_model": 15_000_000}))
    return tmp_path


def test_what_does_not_run_is_judged(pgolf, folder):
    done = pgolf("verify", folder, "--json")
    found = json.loads(done.stdout)
    levels = {each["rule"]: each["level"] for each in found["findings"]}
    assert (done.returncode, found["verdict"], found["scores"]) == (3, "unknown", [])
    assert {"bytes.cap", "artifact.decodes"} <= set(found["undecided"])
    assert levels["folder.contents"] == levels["triage.scan"] == "pass"
    assert levels["claims.bytes"] == "not stated", "a size of what is not here is neither right nor wrong"
    assert "log.headline" in levels
    done = pgolf("verify", folder)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (3, "verdict: unknown")
    assert "nor any *.ptz: what does not run was judged, the rest is unknown; copy the weights there" in done.stderr


def test_what_fails_already_fails(pgolf, folder):
    (folder / "more.py").write_text("x = 1\n")
    done = pgolf("verify", folder)
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (1, "", "verdict: fail")
    assert "more.py" in done.stdout
    (folder / "more.py").unlink()
    (folder / "submission.json").write_text(json.dumps({"script_sha256": "0" * 64}))
    assert pgolf("verify", folder).returncode == 1


def test_code_over_the_cap_needs_no_artifact(pgolf, folder):
    done = pgolf("verify", folder, "--cap", 20)
    assert done.returncode == 1
    assert "too many" in done.stdout


def test_an_audit_still_needs_the_artifact(pgolf, folder):
    done = pgolf("audit", folder, "--data", folder)
    assert (done.returncode, done.stdout) == (3, "")
    assert "neither model.bin nor *.ptz" in done.stderr
