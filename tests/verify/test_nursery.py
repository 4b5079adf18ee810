"""The process that forks those that serve submissions: each of them is alone, and none is left."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codec.errors import EnvironmentLacks
from verify.sandbox import nursery, wire
from verify.sandbox.confine import Limits
from verify.sandbox.nursery import Nursery

SCRIPT = """
import os, sys
import numpy as np
print(np.random.random(), os.getpgrp() == os.getpid(), os.environ["HOME"], sorted(os.listdir("/proc/self/fd")),
      [name for name in sys.modules if name.startswith("verify")], file=sys.stderr)
raise SystemExit
"""


@pytest.fixture
def own():
    own = Nursery()
    yield own
    own.close()


def started(own, folder, script):
    """A process that has confined itself and runs the script; it prints into the folder's `stderr`."""
    folder.mkdir()
    (folder / "train_gpt.py").write_text(script)
    with open(folder / "stderr", "wb") as stderr:
        child = own.fork(Limits(scratch=str(folder)), stderr.fileno())
    job = {"script": f"{folder}/train_gpt.py", "artifact": "", "scratch": str(folder), "environment": {}}
    wire.send(child.requests, {**job, "threads": 1, "device": "cpu", "stated": False, "memory_bytes": 0})
    assert wire.receive(child.answers)[0]["kind"] == "confined"
    return child


def said(own, folder):
    """What SCRIPT prints in a process of its own, and how that ended."""
    child = started(own, folder, SCRIPT)
    assert wire.receive(child.answers)[0]["kind"] == "error"
    assert gone(child.pid)
    return (folder / "stderr").read_text().splitlines()[0], child.end()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_each_child_is_alone(own, tmp_path):
    """Its random numbers, group and folder are its own; of files it has its three, two for us, and the folder's."""
    (first, one), (second, two) = said(own, tmp_path / "a"), said(own, tmp_path / "b")
    assert (one, two) == (0, 0)
    assert first.split()[0] != second.split()[0]
    for line, folder in ((first, "a"), (second, "b")):
        assert line.split(maxsplit=1)[1] == f"True {tmp_path / folder} {[*map(str, range(6))]} []"


def gone(pid):
    """Within ten seconds; one that nobody has waited for yet is as good as gone."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


LOOKING = """
import sys
frame, told = sys._getframe(), {}
while frame:
    told[frame.f_code.co_name] = {name: value for name, value in frame.f_locals.items() if type(value) is int}
    frame = frame.f_back
print(told["main"], [name for name, some in told.items() if 37 in some.values()], file=sys.stderr)
raise SystemExit
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process that is forked")
def test_how_one_ended_is_no_message_to_the_next(own, tmp_path):
    """An exit code is eight bits, and a forked process could find it in the frames that it was forked in."""
    first = started(own, tmp_path / "a", "import os; os._exit(37)")
    assert gone(first.pid)
    assert first.end() == 37
    second = started(own, tmp_path / "b", LOOKING)
    assert wire.receive(second.answers)[0]["kind"] == "error"
    assert (tmp_path / "b" / "stderr").read_text().splitlines()[0] == "{} []"
    second.end()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_children_end_with_it_and_there_is_another(own, tmp_path):
    child = started(own, tmp_path / "a", "import time; time.sleep(600)")
    process = own._running[0]
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentLacks, match="the process that loads torch for submissions ended"):
        own.fork(Limits(scratch=str(tmp_path)), 2)
    assert gone(child.pid)
    assert child.end() == -signal.SIGKILL
    again = started(own, tmp_path / "b", "import time; time.sleep(600)")
    assert own._running[0].pid != process.pid
    assert again.end() == -signal.SIGKILL


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_threads_share_it_and_forks_have_their_own(own, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        every = [*pool.map(lambda name: said(own, tmp_path / name), "abcd")]
    assert [code for _, code in every] == [0] * 4
    assert [line.split()[2] for line, _ in every] == [str(tmp_path / name) for name in "abcd"]
    before = own._running[0].pid
    pid = os.fork()
    if not pid:
        code = 1
        try:
            _, ended = said(own, tmp_path / "e")
            code = ended or own._running[0].pid == before
            own.close()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert own._running[0].pid == before
    assert said(own, tmp_path / "f")[1] == 0


def test_what_interrupts_a_request_ends_it(own, tmp_path, monkeypatch):
    """Or the next one would read the answer of this one."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(nursery.socket, "send_fds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        own.fork(Limits(scratch=str(tmp_path)), 2)
    assert own._running is None
