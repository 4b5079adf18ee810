"""Every attempt of tests/verify/attempts.py, in one confined process as root and in one as an ordinary user.

Afterwards nothing outside has changed, nobody has got a message, and disk and memory were held.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

import verify.sandbox.confine as sandbox
from tests.verify.attempts import ALSO, ATTEMPTS
from verify.sandbox import system_calls
from verify.sandbox.confine import Limits

LINUX = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(
    not LINUX or os.uname().machine not in system_calls.ARCHITECTURES, reason="Landlock and seccomp are of Linux"
)
TOOLKIT = Path(sandbox.__file__).parents[2]
NOBODY = 65534
SCRATCH_BYTES = 50_000_000
# What a refusal looks like: not permitted, no access, not implemented or supported, beyond a limit, another disk.
REFUSED = {"EPERM", "EACCES", "ENOSYS", "EOPNOTSUPP", "EFBIG", "EMFILE", "ENOMEM", "EXDEV", "EAGAIN", "ENOTSUP"}
WITHOUT_ERRNO = {"MemoryError", "ValueError not allowed to raise maximum limit", "gaierror"}

RUNNER = """
import ctypes, errno, fcntl, json, mmap, os, pathlib, re, resource, shutil, signal, socket, struct, subprocess, sys
import time, urllib.request, multiprocessing, multiprocessing.shared_memory, pty

import encodings.idna, multiprocessing.popen_fork
TOOLKIT = sys.argv[1]
sys.path.insert(0, TOOLKIT)
from verify.sandbox import confine, system_calls
sys.path.remove(TOOLKIT)
limits, user, attempts = sys.argv[2], sys.argv[3], json.load(sys.stdin)
confine.granted_paths(confine.Limits(scratch="")), confine.listed()  # Python may lie where nobody may read
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86 = os.uname().machine == "x86_64"
tables = " ".join(text for text in vars(system_calls).values() if isinstance(text, str))
numbers = {name: int(x86 if X86 else arm) for name, x86, arm in re.findall(r"(\\w+) (\\d+|-) (\\d+|-)", tables)
           if (x86 if X86 else arm) != "-"}
for name, pair in {"clone": system_calls.CLONE, "prctl": system_calls.PRCTL, "socketpair": system_calls.SOCKETPAIR,
                   "renameat2": (316, 276), "capset": (126, 91)}.items():
    numbers[name] = pair[0 if X86 else 1]
def call(name, *arguments):
    found = libc.syscall(ctypes.c_long(name if isinstance(name, int) else numbers[name]), *arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), f"system call {name}")
    return found
before = resource.getrlimit(resource.RLIMIT_NOFILE)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
if user:
    os.setgroups([]); os.setgid(int(user)); os.setuid(int(user))
missing = confine.confine(confine.Limits.of_json(limits))
own, found = os.getpid(), {}
for name, code in attempts.items():
    try:
        exec(code, dict(globals()))
        outcome = "went through"
    except socket.gaierror:
        outcome = "gaierror"
    except OSError as error:
        outcome = errno.errorcode.get(error.errno, f"OSError {error}")
        reason = getattr(error, "reason", None)
        if isinstance(reason, OSError):
            outcome = errno.errorcode.get(reason.errno, outcome)
    except MemoryError:
        outcome = "MemoryError"
    except BaseException as error:
        outcome = f"{type(error).__name__} {error}"[:200]
    if os.getpid() != own:
        os._exit(0)
    os.closerange(3, 600)
    found[name] = outcome
memory = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([missing, found, int(memory.split()[1]) * 1000]), flush=True)
os._exit(0)
"""


def seen(folder: Path) -> dict:
    """All that can be told of the files in a folder, but when somebody looked at them."""
    return {
        path.name: (
            (found := path.lstat()).st_mode,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_nlink,
            found.st_uid,
            found.st_size,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *sorted(folder.iterdir())]
    }


def users():
    return ["own", *(["nobody"] if LINUX and os.geteuid() == 0 else [])]


@pytest.fixture(scope="module", params=users())
def tried(request, tmp_path_factory):
    """What became of all attempts in one confined process: (what was missing, outcomes, what happened outside)."""
    place = tmp_path_factory.mktemp(f"attempts-{request.param}")
    scratch, outside = place / "scratch", place / "outside"
    user = NOBODY if request.param == "nobody" else ""
    for folder in (scratch, outside):
        folder.mkdir()
        (folder / "file").write_text("held out")
        (folder / "file").chmod(0o666)
        folder.chmod(0o777)
    (outside / "empty").mkdir()
    os.mkfifo(outside / "fifo")
    os.chmod(outside / "fifo", 0o666)
    for folder in (place, *place.parents):
        if Path(tempfile.gettempdir()) in folder.parents:  # pytest's own, closed to other users
            folder.chmod(0o755)
    abstract = f"pgolf-{secrets.token_hex(8)}"
    victim = subprocess.Popen(["sleep", "600"], user=user or None, group=user or None, start_new_session=True)
    with (
        socket.create_server(("127.0.0.1", 0)) as port,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letters,
    ):
        local.bind(f"\0{abstract}")
        letters.bind(f"\0{abstract}-letters")
        local.listen()
        fifo = os.open(outside / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        names = {
            "scratch": scratch,
            "outside": outside,
            "victim": victim.pid,
            "port": port.getsockname()[1],
            "abstract": abstract,
            "temporary": tempfile.gettempdir(),
        }
        attempts = {name: code.format(**names) for name, code in ATTEMPTS.items()}
        limits = Limits(scratch=str(scratch), memory_bytes=4 * 10**9).to_json()
        before = seen(outside)
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", RUNNER, str(TOOLKIT), limits, str(user)],
                input=json.dumps(attempts),
                capture_output=True,
                text=True,
                timeout=120,
                cwd=scratch,
                start_new_session=True,
            )
            alive, niceness = victim.poll() is None, os.getpriority(os.PRIO_PROCESS, victim.pid)
        finally:
            victim.kill()
            victim.wait()
        assert done.returncode == 0, done.stderr
        messages = []
        for receiver in (port, local):
            receiver.settimeout(0.01)
            with suppress(TimeoutError):
                messages.append(receiver.accept())
        letters.settimeout(0.01)
        with suppress(TimeoutError):
            messages.append(letters.recv(100))
        with suppress(BlockingIOError):
            messages += [data] if (data := os.read(fifo, 100)) else []
        os.close(fifo)
    missing, found, memory = json.loads(done.stdout)
    return {
        "missing": missing,
        "found": found,
        "memory": memory,
        "changed": seen(outside) != before,
        "alive": alive,
        "niceness": niceness,
        "messages": messages,
        "disk": sum(path.lstat().st_blocks * 512 for path in scratch.rglob("*")),
    }


@pytest.mark.parametrize("name", ATTEMPTS)
def test_every_attempt_is_refused(tried, name):
    outcome = tried["found"][name]
    assert outcome in REFUSED | WITHOUT_ERRNO | ALSO.get(name, set()), outcome


def test_afterwards_nothing_has_changed(tried):
    assert len(tried["found"]) == len(ATTEMPTS) >= 150
    assert not tried["changed"]
    assert tried["alive"]
    assert tried["niceness"] == os.getpriority(os.PRIO_PROCESS, 0)
    assert tried["messages"] == []
    assert tried["disk"] <= SCRATCH_BYTES
    assert tried["memory"] <= 4 * 10**9
    assert [
        path for path in (f"{tempfile.gettempdir()}/pgolf-attempt", "/dev/shm/pgolf-attempt") if os.path.exists(path)
    ] == []
    assert set(tried["missing"]) <= {sandbox.THREADS}
