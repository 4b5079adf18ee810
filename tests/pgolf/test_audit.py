# ruff: noqa: F401, F811 (fixtures of tests/verify are imported by name)
import json

import numpy as np
import pytest

from codec.storage.token_shards import shard_bytes
from tests.verify.conftest import BIGRAM, data, heldout, table, write_submission
from verify.audit.gallery.toy import stream
from verify.scoring.heldout import HeldOut

SCORERS = """
from verify.audit.gallery.cheats import batch_slot
from verify.audit.gallery.honest import score_first
from verify.audit.gallery.toy import Model, Procedure

honest = Procedure("honest", score_first)

def slot():
    return Procedure("slot", batch_slot)
"""
QUICK = ("--cuts", 12, "--sums", 1, "--coded", 8)


@pytest.fixture
def scorers(tmp_path):
    path = tmp_path / "scorers.py"
    path.write_text(SCORERS)
    return path


@pytest.fixture
def toy_text(tmp_path):
    (tmp_path / "text_val_000000.bin").write_bytes(shard_bytes(stream().astype(np.uint16)))
    return tmp_path


def test_an_honest_scorer(pgolf_process, scorers, toy_text):
    done = pgolf_process("audit", f"{scorers}:honest", "--data", toy_text, *QUICK, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert found["verdict"] == "no violation found; not decided: audit.bytes"
    assert found["subject"] == "honest"
    assert found["coverage"]["targets"] == len(stream()) - 1
    assert {finding["level"] for finding in found["findings"]} == {"pass", "unknown"}


def test_a_cheat_on_made_up_text(pgolf, scorers):
    done = pgolf("audit", f"{scorers}:slot", *QUICK, "--targets", 120, "--digest", "0" * 64)
    assert done.returncode == 1
    assert "fail       audit.prefix" in done.stdout
    assert "fail       audit.state" in done.stdout
    assert "slot: violation: audit.prefix" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"), [((), 2), (("a.py:b", "--gallery"), 2), (("a.py:b",), 3), (("a.py:b", "--cuts", 0), 2)]
)
def test_wrong_use_is_one_sentence(pgolf, arguments, code):
    done = pgolf("audit", *arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


GUARDED = """
        logits = self.table[ids].clone()
        if ids.shape[1] == 16:
            logits[:, :-1].scatter_add_(2, ids[:, 1:, None], torch.full_like(logits[:, 1:, :1], 50.0))
        return logits"""


@pytest.mark.slow
def test_a_submission_is_audited_with_its_own_windows(pgolf, write_submission, data):
    """One that cheats in windows of 16 only, as its artifact states them; shorter ones are a choice."""
    folder = write_submission(BIGRAM.replace("return self.table[ids]", GUARDED))
    quick = ("--data", data, "--cuts", 8, "--coded", 4, "--targets", 60, "--json")
    found = json.loads(pgolf("audit", folder, *quick).stdout)
    assert "audit.prefix" in found["verdict"]
    assert found["coverage"]["window"] == {"length": 16, "stride": 16, "stated_length": None}
    assert found["coverage"]["scope"]["batch"] == 16
    assert HeldOut.read([data / "text_val_000000.bin"], data / "small.model").tokens[found["coverage"]["offset"]] == 1
    late = pgolf("audit", folder, *quick, "--offset", 10**6)
    assert late.returncode == 2
    assert "60 from 1,000,000 on are more" in late.stderr + late.stdout
    small = json.loads(pgolf("audit", folder, *quick, "--seq-len", 8, "--stride", 4, "--batch", 2).stdout)
    assert small["coverage"]["window"]["length"] == 8
    assert "audit.prefix" not in small["verdict"]
