"""Shared fixtures: the optional data folder beside the checkout, and the command line, in a process and here."""

import io
import os
import subprocess
import sys
import tempfile
from contextlib import chdir, contextmanager
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
def pgolf_process():
    """Run `python -m pgolf ARGS...` -> CompletedProcess with text output; one thread unless the environment says.

    Its import of torch takes 2 CPU seconds: for what only a process can show, and once for every command.
    """

    def run(*arguments, timeout=240, **options):
        command = [sys.executable, "-m", "pgolf", *map(str, arguments)]
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, **options)

    return run


@pytest.fixture(scope="session")
def pgolf(pgolf_process):
    """The same in this process: every line that reaches standard output or error is seen, those of C libraries too.

    But for plugins: what they register would stay.
    """
    import torch

    from pgolf.__main__ import main

    def run(*arguments, cwd="."):
        if "--plugin" in arguments:
            return pgolf_process(*arguments, cwd=cwd)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with chdir(cwd), _redirected("stdout") as out, _redirected("stderr") as err:
                code = main([*map(str, arguments)])
            return subprocess.CompletedProcess(arguments, code, out.read(), err.read())
        finally:
            torch.set_num_threads(threads)

    return run


@contextmanager
def _redirected(name):
    """sys.stdout or sys.stderr and the descriptor behind it go to a file, which is afterwards at its beginning."""
    stream, descriptor = getattr(sys, name), {"stdout": 1, "stderr": 2}[name]
    stream.flush()
    kept = os.dup(descriptor)
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="", buffering=1) as file:
        os.dup2(file.fileno(), descriptor)
        setattr(sys, name, file)
        try:
            yield (text := io.StringIO(newline=""))
        finally:
            setattr(sys, name, stream)
            os.dup2(kept, descriptor)
            os.close(kept)
            file.seek(0)
            text.write(file.read())
            text.seek(0)
