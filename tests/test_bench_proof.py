"""benchmarks/bench_proof.py: what its committed results say, and that it says no when leaks are missed."""

import json

import pytest

from benchmarks import bench_proof
from benchmarks.compared.leaks import least_found
from codec.errors import InputError
from tests.conftest import ROOT

RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("name", ["bench_proof.json", "bench_proof_own.json"])
def test_leaks_were_found_as_often_as_stated_and_nobody_was_accused(name):
    report = json.loads((RESULTS / name).read_text())
    found = report["detection"]
    assert {(row["leak"], row["share"]) for row in found["still"]} == {
        (leak, share) for leak in ("positions", "requests") for share in (1.0, 0.1, 0.02)
    }
    for row in (*found["still"], *found["noisy"]):
        assert row["of"] == 200
        assert row["found"] >= least_found(200, row["stated"])
        assert row["nats"] * row["share"] == pytest.approx(0.0005)
    assert [row["found"] for row in found["honest"]] == [0, 0]
    assert str(ROOT) not in json.dumps(report)


def test_missed_leaks_are_told(monkeypatch):
    half = lambda runs, leak, look, *how, **more: (runs // 2, 0.99 if leak.share else 0.0)  # noqa: E731
    monkeypatch.setattr(bench_proof, "found_in", half)
    with pytest.raises(InputError, match=r"found 100 of 200, stated 0\.990"):
        bench_proof._detection(200)
