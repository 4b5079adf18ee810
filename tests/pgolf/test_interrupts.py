"""Ctrl-C as a terminal sends it: SIGINT to a real command and all of its processes, in the middle of what it shows.

What a command does when its output is about to take its name is in test_outputs.py; that a run of `train` goes on where
it was stopped, by SIGINT or SIGKILL, bit for bit, in test_train.py.
"""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pytest

from codec.storage.atomic_files import TEMPORARY
from codec.storage.token_shards import shard_bytes
from tests.conftest import ROOT
from tests.packager.conftest import checkpoint, data  # noqa: F401
from tests.pgolf.test_outputs import here, made, tree  # noqa: F401

PATIENCE = 240.0  # seconds; a busy machine imports torch in 30
SMALL = ("--data", "data", "--seq-len", "16", "--stride", "8", "--batch", "1")
# What is typed, and what is on the screen when Ctrl-C comes.
LEFT_NOTHING = [
    (("pack", "run/checkpoint.safetensors", "--recipe", "pr162", "-o", "out"), "pack .* [1-9]\\d*/1000"),
    (("verify", "packed", *SMALL), "scoring .* bpb"),
    (
        ("verify", "packed", *SMALL, "--strict", "400", "--limit-tokens", "800"),
        "scoring from prefixes .* [1-9]\\d*/400",
    ),
    (("audit", "packed", *SMALL, "--targets", "64"), "scoring once .* so far"),
    (("audit", "packed", *SMALL, "--targets", "64"), "auditing .* runs"),
    (("audit", "--gallery", "-o", "out.md"), "auditing .* [1-9]\\d*/"),
    (("audit", "--gallery", "--submissions", "-o", "out.md"), "verifying .* [1-9]\\d*/"),
    (("doctor", "--gpu", "--dry-run", "-o", "out"), "gpu-check .* 1/"),
]


@pytest.fixture
def place(here):  # noqa: F811
    """With a text that takes minutes to score."""
    ids = np.random.default_rng(0).integers(3, 300, 200_000)
    (here / "data" / "tiny_val_000000.bin").write_bytes(shard_bytes(ids))
    return here


@pytest.fixture
def temporary():
    """Empty, and with a name short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="ctrl-c-") as folder:
        yield Path(folder)


def interrupted(place, temporary, arguments, screen):
    """The exit code of a command that gets SIGINT when its last bar is as `screen` says, and what it showed."""
    main_end, command_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pgolf", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=command_end,
        start_new_session=True,
        preexec_fn=heeds_ctrl_c,
    )
    os.close(command_end)
    shown, since, family = "", time.monotonic(), set()
    try:
        with contextlib.suppress(OSError):  # a terminal whose last process is gone
            while text := os.read(main_end, 65536):
                shown += click.unstyle(text.decode(errors="replace"))
                assert time.monotonic() - since < PATIENCE, shown[-2000:]
                if not family and re.search(screen, shown):
                    family = descendants(process.pid)
                    os.killpg(process.pid, signal.SIGINT)
        code = process.wait(PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        os.close(main_end)
    assert family, shown[-2000:]
    return code, shown, family


def heeds_ctrl_c():
    """In the new process: a test run in a shell's background has SIGINT ignored, and what it starts inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def descendants(pid):
    """(pid, start) of a process and all below it."""
    found = {started(pid)}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= descendants(int(child))
    return found


def started(pid):
    """(pid, when it started), for numbers are given again."""
    return pid, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def alive(process):
    try:
        return started(process[0]) == process and "\tZ" not in Path(f"/proc/{process[0]}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def left_in(temporary):
    """Names; the caches that torch keeps for the next process are not ours."""
    return sorted(path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor_"))


def gone(family):
    """Whether all of them end within 10 seconds: what was killed takes a moment."""
    end = time.monotonic() + 10
    while any(map(alive, family)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, family))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("arguments", "screen"), LEFT_NOTHING, ids=[screen for _, screen in LEFT_NOTHING])
def test_ctrl_c_leaves_no_process_no_scratch_and_no_output(place, temporary, arguments, screen):
    before = tree(place)
    code, shown, family = interrupted(place, temporary, arguments, screen)
    assert (code, shown.rstrip().splitlines()[-1]) == (130, "Error: interrupted")
    assert gone(family)
    assert left_in(temporary) == []
    assert tree(place) == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("screen", "kept"),
    [
        ("encoding .* 0/100", set()),
        ("train cpu-demo .* [1-9]\\d*/40 .* loss", {"data", "run"}),
        ("scoring .* bpb", {"data", "run", "submission"}),
    ],
)
def test_a_demo_keeps_what_is_complete(place, temporary, screen, kept):
    """Whole folders, or a run that `train --resume` goes on with; the next demo in the folder begins anew."""
    from pgolf.commands.demo import _check

    arguments = ("demo", "--text", "text.txt", "--steps", "40", "-o", "out")
    code, shown, family = interrupted(place, temporary, arguments, screen)
    assert (code, shown.rstrip().splitlines()[-1]) == (130, "Error: interrupted")
    assert gone(family)
    assert left_in(temporary) == []
    names = {path.name for path in (place / "out").iterdir()} if (place / "out").exists() else set()
    assert names == kept
    _check(place / "out")
    if "run" in kept:
        run = {path.name for path in (place / "out" / "run").iterdir()}
        assert "state.safetensors" in run
        assert not any(TEMPORARY in name for name in run)
