"""benchmarks/bench_crafted.py: what its committed results say, and that it says no to what takes too long."""

import json

from click.testing import CliRunner

from benchmarks import bench_crafted
from codec.errors import InputError
from tests.codec.crafted import LARGE, SMALL
from tests.conftest import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "bench_crafted.json"


def test_every_crafted_artifact_was_read_within_its_bounds():
    rows = json.loads(RESULTS.read_text())["rows"]
    assert [(row["name"], row["question"]) for row in rows] == [
        (name, question) for name in (*SMALL, *LARGE) for question in ("state", "ledger")
    ]
    for row in rows:
        assert row["seconds"] < 2
        assert row["memory"] <= row["bound"]


def test_what_takes_too_long_is_told_by_name(monkeypatch):
    monkeypatch.setattr(bench_crafted, "SECONDS", 0.0)
    done = CliRunner().invoke(bench_crafted.bench, ["--only", "a tie to itself"])
    assert isinstance(done.exception, InputError)
    assert "a tie to itself (state), a tie to itself (ledger)" in str(done.exception)
    assert "refused" in done.output


def test_a_name_that_is_none_is_a_sentence():
    done = CliRunner().invoke(bench_crafted.bench, ["--only", "no such artifact"])
    assert "no crafted artifact has 'no such artifact' in its name" in str(done.exception)
