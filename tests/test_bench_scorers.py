"""benchmarks/bench_scorers.py on little text: equal numbers, and the arithmetic of the plan."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def test_the_loop_and_the_scorer_agree(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_scorers", "--quick", "--output", tmp_path / "results.json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    (result,) = report["results"]
    # 1 window of 256 targets, 11 of 64 and one of 40, which all read 256 tokens but the last, 232.
    counts = [result[key] for key in ("targets", "windows", "tokens_read", "tokens_recomputed")]
    assert counts == [1000, 13, 12 * 256 + 232, 12 * 256 + 232 - 1000]
    assert "3,304 tokens read, 2,304 of them again (3.30 per target)" in done.stdout
    nats = set(result["nats"])
    assert nats == set(result["seconds"]) == {"sliding", "sliding, .logits only", "plain loop"}
    assert result["nats"]["sliding"] == pytest.approx(result["nats"]["plain loop"], rel=1e-6)
    assert report["machine"]["cpu"]
    assert "torch" in report["machine"]["versions"]
    assert str(ROOT) not in json.dumps(report)
