"""examples/: each script runs as a user runs it, is short, and what it prints means what it says."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
TESTED = {"test_audit_scorer", "test_own_quantizer", "test_own_recipe", "test_pack_checkpoint", "test_score_model"}


def run(name):
    """What the script prints, as lines."""
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def numbers(line):
    return [float(each.replace(",", "")) for each in re.findall(r"-?\d[\d,]*(?:\.\d+)?", line)]


def test_all_are_short_and_tested_here():
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [f"test_{each.stem}" for each in scripts] == sorted(name for name in globals() if name in TESTED)
    assert len(scripts) == len(TESTED)
    for script in scripts:
        assert len(script.read_text().splitlines()) < 60, script


def test_pack_checkpoint():
    packed, loaded = run("pack_checkpoint")
    before, after, bits = numbers(packed)
    assert 3.25 < bits <= 3.3
    assert before / after == pytest.approx(32 / bits, rel=0.05)  # of float32, but for the biases
    tensors, decibel = numbers(loaded)
    assert tensors == 5
    assert decibel > 15


def test_own_quantizer():
    ternary, own = (numbers(line) for line in run("own_quantizer"))
    assert ternary[0] < 1.7  # log2(3) = 1.585 and tables
    assert 6 < ternary[1] < 9
    assert own[1] > 4.5


def test_own_recipe():
    lines = run("own_recipe")
    total, before = numbers(lines[0])
    assert sum(numbers(line.split("bytes")[0])[-1] for line in lines[1:4]) == pytest.approx(total, rel=0.02)
    assert ("int6" in lines[1], "int5" in lines[2], "float16" in lines[3]) == (True, True, True)
    goal, fitted, after = numbers(lines[4])
    assert goal == total * 3 // 4
    assert 0 <= goal - fitted < 40
    assert after < before
    assert "treatment = " in lines[-1]


def test_score_model():
    uniform, bigrams = (numbers(line) for line in run("score_model"))
    assert uniform[:2] == bigrams[:2]  # targets and bytes are the text's
    assert uniform[2] == pytest.approx(5.7683, abs=1e-3)  # log(320)
    for targets, size, loss, bpb in (uniform, bigrams):
        assert bpb == pytest.approx(loss / 0.693147 * targets / size, abs=2e-3)
    assert bigrams[3] < uniform[3] / 4


def test_audit_scorer():
    lines = run("audit_scorer")
    assert lines[0].startswith("honest: no violation found")
    assert lines[1].startswith("peeking: violation: ")
    assert {"audit.self_target", "audit.kraft"} <= {line.split(":")[0].strip() for line in lines[2:]}
