"""Shared fixtures: the optional data folder beside the checkout, and the real command line in a subprocess."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Two busy cores make any time limit on an example a coin toss.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

collect_ignore = ["verify/seeds"]  # scripts as submissions have them; looking for doctests would run them
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's shared data folder; in CI its absence is a failure, elsewhere a skip."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail("shared data folder is missing in CI")
        pytest.skip("needs the shared data folder beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def pgolf():
    """Run `python -m pgolf ARGS...` -> CompletedProcess with text output; one thread unless the environment says."""

    def run(*arguments, timeout=240, **options):
        command = [sys.executable, "-m", "pgolf", *map(str, arguments)]
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, **options)

    return run
