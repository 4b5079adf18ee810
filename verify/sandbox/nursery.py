"""A process that has torch and nothing of any submission; what it forks confines itself and serves one.

    python -I -B -c BOOT ROOT      wait for requests on the socket that is stdin; see Nursery

Importing torch takes 1.3 s of processor time; a verification needs two to five processes, the gallery a hundred.  A
forked process has one thread whatever its parent has, so that it can confine itself for good.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from codec.errors import EnvironmentLacks
from verify.sandbox.confine import Limits, confine, granted_paths
from verify.sandbox.installation import readable

ROOT = str(Path(__file__).resolve().parents[2])
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from verify.sandbox.nursery import main; main()"
# What Python and CUDA need to start, and how long waiting threads spin (see pgolf.__main__): the checker's, not a
# submission's.
KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "GOMP_SPINCOUNT")


@dataclass(slots=True)
class Child:
    """A confined process, leader of a group of its own.  requests, answers: its stdin and stdout."""

    pid: int
    requests: IO[bytes]
    answers: IO[bytes]
    _nursery: "Nursery" = field(repr=False)
    _exit_code: int | None = None

    def kill(self) -> None:
        """End it and whatever it started."""
        if self._exit_code is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kill it if it lives, close its pipes; its exit code, negative for a signal."""
        self.kill()
        if self._exit_code is None:
            self._exit_code = self._nursery.wait(self.pid)
        for pipe in (self.requests, self.answers):
            with suppress(BrokenPipeError):
                pipe.close()
        return self._exit_code


class Nursery:
    """Starts its process when it is first asked, and again when that is gone; it ends with this program.

    Threads may share it.  What this program forks itself starts one of its own.
    """

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._running: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._lock = threading.Lock()

    def fork(self, limits: Limits, stderr: int) -> Child:
        """A process that has confined itself and waits for its job; see verify.sandbox.worker.

        Raises: EnvironmentLacks when torch cannot be imported.
        """
        its_requests, requests = os.pipe()
        answers, its_answers = os.pipe()
        try:
            pid = self._ask({"fork": limits.to_json()}, (its_requests, its_answers, stderr))
        except BaseException:
            os.close(requests)
            os.close(answers)
            raise
        finally:
            os.close(its_requests)
            os.close(its_answers)
        return Child(pid, os.fdopen(requests, "wb"), os.fdopen(answers, "rb"), self)

    def wait(self, pid: int) -> int:
        """Exit code of a forked process that was killed or is about to end; all die with the nursery."""
        return self._ask({"wait": pid}) if self._running else -signal.SIGKILL

    def close(self) -> None:
        """End it and all that it forked."""
        if self._running:
            process, requests = self._running
            requests.close()  # which ends it, unless a child that it waits for cannot be killed
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
            process.kill()
            process.wait()
        self._running = None

    def _start(self) -> socket.socket:
        environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        environment |= {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
        environment["MALLOC_ARENA_MAX"] = "8"  # each reserves 64 MB of the limited address space, for every thread one
        requests, its = socket.socketpair()
        with its:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", BOOT, ROOT],
                cwd="/",
                env=environment,
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._running = process, requests
        atexit.register(self.close)
        return requests

    def _ask(self, request: dict[str, Any], files: Sequence[int] = ()) -> int:
        """One request, one number.  Whatever comes in between, Ctrl-C too, ends the process: answers would be mixed."""
        answer = b""
        with self._lock:
            requests = self._running[1] if self._running else self._start()
            try:
                with suppress(BrokenPipeError, ConnectionResetError):
                    socket.send_fds(requests, [json.dumps(request).encode() + b"\n"], files)
                    answer = requests.recv(64)
                if not answer:
                    raise EnvironmentLacks(
                        "the process that loads torch for submissions ended",
                        hint=f"{sys.executable} -I -c 'import torch' says why",
                    )
                return int(answer)
            except BaseException:
                self.close()
                raise


def main() -> None:
    """Fork whenever stdin says so, until it ends."""
    parent = socket.socket(fileno=0)
    from verify.sandbox import worker  # noqa: F401  torch comes with it

    sys.path.remove(ROOT)
    # Once confined, few folders can be listed: the path finder keeps what it saw of the others here.
    find_spec("no_such_module_anywhere")
    while True:
        line, files, *_ = socket.recv_fds(parent, 1 << 16, 3)
        while line and not line.endswith(b"\n"):
            line += parent.recv(1 << 16)
        if not line:
            return
        request = json.loads(line)
        # No name for the answer: what is forked next would find how the last one ended, eight bits of its choice.
        parent.sendall(b"%d" % (_wait(request["wait"]) if "wait" in request else _fork(request["fork"], files)))


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork(text: str, files: Sequence[int]) -> int:
    """In the nursery: the new process's number.  In that process: does not come back.  text: its limits, as JSON."""
    limits = Limits.of_json(text)
    readable(limits.packages)  # it is cached, so that not every child has to look at the installation
    pid = os.fork()
    if not pid:
        _live(limits, files)
    with suppress(PermissionError, ProcessLookupError):  # whoever is first
        os.setpgid(pid, pid)
    for file in files:
        os.close(file)
    return pid


def _live(limits: Limits, files: Sequence[int]) -> None:
    """What a forked process does: no descriptor but the standard three, confine, serve."""
    import numpy as np

    from verify.sandbox.worker import serve

    code = 1
    try:
        os.setpgid(0, 0)
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir(limits.scratch)
        os.environ.update({"HOME": limits.scratch, "TMPDIR": limits.scratch})
        np.random.seed()  # or all children would draw the same; Python's own generator sees to that itself
        granted = frozenset(os.path.realpath(path) for path in granted_paths(limits))
        serve(confine(limits), granted)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # nothing of the nursery's is to be run on the way out
