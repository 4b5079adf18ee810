"""Each attempt works in an ordinary process and fails in a confined one; what loading a model needs goes on working."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import verify.sandbox.confine as sandbox
from verify.sandbox import system_calls
from verify.sandbox.confine import Limits, confine
from verify.sandbox.scratch import DEEPEST, Watchdog, scratch_folder

ROOT = Path(sandbox.__file__).parents[2]
LINUX = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(not LINUX, reason="Landlock and seccomp are of Linux")

# Runs attempts, one by one, and tells which went through.  argv: limits, user id or "", attempts as JSON.
RUNNER = """
import ctypes, fcntl, json, mmap, os, resource, signal, socket, subprocess, sys, tempfile, threading
sys.path.insert(0, sys.argv[1])
import verify.sandbox.confine
names = vars(verify.sandbox.confine)
names["granted_paths"](names["Limits"](scratch="")), names["listed"]()  # Python may lie where nobody may read
limits, user, attempts = sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "system call")
if user:
    os.setgid(int(user)); os.setuid(int(user))
missing = names["confine"](names["Limits"].of_json(limits)) if limits else None
found = {}
for name, code in attempts.items():
    if not limits:  # an earlier attempt went through
        for folder in sys.argv[5:]:
            open(folder + "/file", "w").write("held out")
    try:
        exec(code)
        found[name] = "went through"
    except BaseException as error:
        found[name] = type(error).__name__
print(json.dumps([missing, found]), flush=True)
os._exit(0)
"""


@pytest.fixture
def attempt(tmp_path):
    """attempt({name: code}, confined, user) -> (what is missing, {name: outcome}).

    In the code {scratch} and {outside} stand for folders, each with a file, and {victim} for another process.
    """
    scratch, outside = tmp_path / "scratch", tmp_path / "outside"
    for folder in (scratch, outside):
        folder.mkdir()
        folder.chmod(0o777)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if Path(tempfile.gettempdir()) in parent.parents:  # pytest's own, closed to other users
            parent.chmod(0o755)

    def run(attempts, confined=True, user="", **limits):
        for folder in (scratch, outside):
            for path in folder.iterdir():
                path.unlink()
            (folder / "file").write_text("held out")
            (folder / "file").chmod(0o666)
        victim = subprocess.Popen(["sleep", "600"], user=user or None, group=user or None)
        code = {
            name: text.format(scratch=scratch, outside=outside, victim=victim.pid) for name, text in attempts.items()
        }
        chosen = Limits(scratch=str(scratch), memory_bytes=4 * 10**9, **limits).to_json() if confined else ""
        command = [sys.executable, "-I", "-c", RUNNER, str(ROOT), chosen, str(user), json.dumps(code)]
        command += [str(scratch), str(outside)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, cwd=scratch, start_new_session=True
            )
            assert done.returncode == 0, done.stderr
            assert victim.poll() is None or not confined
        finally:
            victim.kill()
            victim.wait()
        return json.loads(done.stdout)

    run.scratch, run.outside = scratch, outside
    return run


ATTEMPTS = {
    "open a socket": "socket.socket()",
    "open a local socket": "socket.socket(socket.AF_UNIX)",
    "resolve a name": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "write outside": "open('{outside}/new', 'w')",
    "append outside": "open('{outside}/file', 'a')",
    "empty a file outside": "os.truncate('{outside}/file', 0)",
    "empty by opening": "os.open('{outside}/file', os.O_RDONLY | os.O_TRUNC)",
    "remove outside": "os.remove('{outside}/file')",
    "make a folder outside": "os.mkdir('{outside}/folder')",
    "move a file out": "os.rename('{scratch}/file', '{outside}/moved')",
    "link from outside": "os.link('{outside}/file', '{scratch}/linked')",
    "read outside": "open('{outside}/file').read()",
    "list outside": "os.listdir('{outside}')",
    "read the machine's name": "open('/etc/hostname').read()",
    "read through a symbolic link": "os.symlink('{outside}/file', '{scratch}/l'); open('{scratch}/l').read()",
    "write through a symbolic link": "os.symlink('{outside}/x', '{scratch}/m'); open('{scratch}/m', 'w')",
    "read through /proc": "open('/proc/self/root{outside}/file').read()",
    "read through a folder's descriptor": "os.open('file', 0, dir_fd=os.open('{outside}', os.O_PATH))",
    "read the parent's environment": "open(f'/proc/{{os.getppid()}}/environ').read()",
    "start a program": "subprocess.run(['/bin/true'], check=True)",
    "start a shell": "assert os.system('true') == 0",
    "become a program": "pid = os.fork(); pid or os._exit(0)",
    "fork": "os.fork() or os._exit(0)",
    "look whether the parent can be killed": "os.kill(os.getppid(), 0)",
    "kill another process": "os.kill({victim}, signal.SIGTERM)",
    "signal the group": "signal.signal(signal.SIGUSR1, signal.SIG_IGN); os.kill(0, signal.SIGUSR1)",
    "signal by descriptor": "os.pidfd_open({victim})",
    "own a descriptor for another": "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, {victim})",
    "trace another process": "assert libc.ptrace(16, {victim}, 0, 0) == 0",
    "limit another process": "resource.prlimit({victim}, resource.RLIMIT_NOFILE, (9, 9))",
    "renice another process": "os.setpriority(os.PRIO_PROCESS, {victim}, 19)",
    "change a mode outside": "os.chmod('{outside}/file', 0o600)",
    "change a time outside": "os.utime('{outside}/file')",
    "shared memory outside the limits": "os.write(os.memfd_create('x'), b'x')",
    "a System V segment": "call(29 if os.uname().machine == 'x86_64' else 194, 0, 4096, 0o1600)",
    "a new namespace": "call(272 if os.uname().machine == 'x86_64' else 97, 0x10000000)",
    "io_uring": "call(425, 1, ctypes.create_string_buffer(120))",
    "more memory than the limit": "mmap.mmap(-1, 5 * 10**9)",
    "a file beyond the limit": "os.posix_fallocate(os.open('{scratch}/big', os.O_CREAT | os.O_WRONLY), 0, 3 * 10**8)",
    "raise a limit": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "many open files": "[os.dup(0) for _ in range(600)]",
}
ROOT_ONLY = {
    "make a device": "os.mknod('{scratch}/disk', 0o60600, os.makedev(254, 0))",
    "change the root": "os.chroot('{scratch}')",
    "set the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))",
}
OF_ROOT = ["number of threads (the kernel sets root no limit; run verify as another user)"]
# Not every kernel allows these to ordinary processes, so going through unconfined is no condition.
UNSURE = {"a new namespace", "io_uring", "trace another process", "set the clock", "raise a limit"}
PARENTS = {"read the parent's environment", "look whether the parent can be killed"}  # it belongs to root


@pytest.mark.parametrize("user", ["", *([65534] if LINUX and os.geteuid() == 0 else [])])
def test_each_attempt_fails_when_confined_and_only_then(attempt, user):
    attempts = ATTEMPTS | ({} if user or os.geteuid() else ROOT_ONLY)
    missing, confined = attempt(attempts, user=user)
    assert missing == (OF_ROOT if not user and os.getuid() == 0 else [])
    assert [name for name, outcome in confined.items() if outcome == "went through"] == []
    assert [(path.name, path.read_text()) for path in attempt.outside.iterdir()] == [("file", "held out")]
    unsure = UNSURE | (PARENTS if user else set())
    _, free = attempt({name: code for name, code in attempts.items() if name not in unsure}, confined=False, user=user)
    assert [name for name, outcome in free.items() if outcome != "went through"] == []


WORKS = {
    "write in the scratch folder": "open('{scratch}/log', 'w').write('x'); os.makedirs('{scratch}/a/b')",
    "move in the scratch folder": "os.rename('{scratch}/log', '{scratch}/a/b/log'); os.remove('{scratch}/a/b/log')",
    "temporary files": "tempfile.TemporaryFile(dir='{scratch}').write(b'x')",
    "threads": "thread = threading.Thread(target=os.getpid); thread.start(); thread.join()",
    "random numbers": "os.urandom(8); open('/dev/urandom', 'rb').read(8)",
    "signals to itself": "os.kill(os.getpid(), 0); signal.raise_signal(signal.SIGCHLD)",
    "imports": "import decimal, sqlite3, xml.dom.minidom",
    "torch": "import torch; torch.set_num_threads(2); assert torch.ones(300, 300).mm(torch.ones(300, 1)).sum() == 9e4",
    "training": "layer = torch.nn.Linear(64, 64); layer(torch.randn(512, 64)).sum().backward()",
    "mapped files": "torch.save(layer.state_dict(), '{scratch}/w.pt'); torch.load('{scratch}/w.pt', mmap=True)",
}


def test_what_loading_a_model_needs_goes_on_working(attempt):
    _, found = attempt(WORKS)
    assert found == dict.fromkeys(WORKS, "went through")


def test_limits_of_the_kernel_are_named(monkeypatch):
    """Without Landlock, seccomp, on another machine or system: what is missing is said, and nothing raises."""

    class OldKernel:
        def syscall(self, *arguments):
            return -1

        def prctl(self, option, *arguments):
            return -1 if option.value == sandbox.PR_SET_SECCOMP else 0

    limits = Limits(scratch="/nowhere")
    assert sandbox._landlock(OldKernel(), limits) == ["files (the kernel has no Landlock)"]
    assert "seccomp was refused" in sandbox._seccomp(OldKernel(), limits)[0]
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "riscv64")
    assert "no table of system calls for riscv64" in sandbox._seccomp(OldKernel(), limits)[0]
    monkeypatch.setattr(sandbox, "_limit_resources", lambda limits: [])
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    assert confine(limits) == ["network, files, processes and signals (darwin has neither Landlock nor seccomp)"]


OLDER = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
import verify.sandbox.confine
names, version = vars(verify.sandbox.confine), int(sys.argv[2])
class Older:
    prctl = ctypes.CDLL(None).prctl
    def syscall(self, number, *arguments):
        asks = number == 444 and arguments[0] is None
        return version if asks else ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
kernel = Older()
kernel.prctl(38, ctypes.c_ulong(1), 0, 0, 0)
print(names["_landlock"](kernel, names["Limits"](scratch=sys.argv[3])))
open(sys.argv[3] + "/in", "w").close()
for attempt in (lambda: open("/etc/hostname"), lambda: open(sys.argv[4], "w")):
    try:
        attempt()
    except PermissionError:
        print("refused")
"""


@pytest.mark.parametrize("version", range(1, 8))
def test_older_versions_of_landlock_confine_files_too(tmp_path, version):
    if sandbox.ctypes.CDLL(None).syscall(444, None, sandbox.ctypes.c_size_t(0), 1) < version:
        pytest.skip("this kernel has an older one itself")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-I", "-c", OLDER, str(ROOT), str(version), str(scratch), str(tmp_path / "outside")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    missing, *refused = done.stdout.splitlines()
    assert refused == ["refused", "refused"], done.stderr
    assert ("truncation" in missing) == (version < 3)


def test_every_readable_folder_is_named_narrowly():
    """Not the whole of /usr, of a home folder or of the temporary folder: held-out text may lie there."""
    wide = {
        Path(path)
        for path in ("/", "/usr", "/home", "/root", "/etc", "/var", "/proc", tempfile.gettempdir(), Path.home())
    }
    assert wide.isdisjoint(map(Path, sandbox.granted_paths(Limits(scratch="/s"))))


@pytest.mark.parametrize(
    ("column", "header"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
)
def test_the_tables_are_the_kernels(column, header):
    """Against the kernel's own headers, where they are installed."""
    if not Path(header).exists():
        pytest.skip("the kernel's headers are not installed")
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    names = ("DENIED", "NOT_IMPLEMENTED", "NOT_SUPPORTED", "LOAD_OF_THE_MACHINE", "PLACES", "ONLY_ITSELF")
    tables = " ".join(getattr(system_calls, name) for name in (*names, "ONLY_ITSELF_OR_ZERO"))
    rows = re.findall(r"(\w+) (\d+|-) (\d+|-)", tables)
    assert len(rows) > 140
    for name, *ours in rows:
        assert numbers.get(name, ours[column]) == ours[column], name
    others = {"clone": "CLONE", "fcntl": "FCNTL", "ioctl": "IOCTL", "prctl": "PRCTL", "socketpair": "SOCKETPAIR"}
    assert {name: getattr(system_calls, ours)[column] for name, ours in others.items()} == {
        name: int(numbers[name]) for name in others
    }
    assert {name: pair[0][column] for name, pair in zip(("open", "openat"), system_calls.OPENING, strict=True)} == {
        "open": int(numbers.get("open", -1)),
        "openat": int(numbers["openat"]),
    }
    newest = system_calls.NEWEST
    assert max(map(int, numbers.values())) <= newest or int(numbers.get("setxattrat", 463)) > newest


@pytest.mark.parametrize(
    ("fill", "seconds", "reason"),
    [
        (lambda folder: None, 0.1, "took longer than the time limit of 0.1 s"),
        (lambda folder: (folder / "big").write_bytes(bytes(2_000_000)), 60, "beyond 1,000,000 bytes"),
        (lambda folder: [(folder / f"{i}").touch() for i in range(10_001)], 60, "beyond 1,000,000 bytes"),
    ],
)
def test_the_watchdog_ends_the_process(tmp_path, fill, seconds, reason):
    ended = []
    fill(tmp_path)
    watchdog = Watchdog(lambda: ended.append(True), Limits(scratch=str(tmp_path), scratch_bytes=1_000_000), seconds)
    watchdog.start()
    watchdog.join(30)
    assert ended == [True]
    assert watchdog.reason.endswith(reason)


def test_a_stopped_watchdog_ends_nothing(tmp_path):
    ended = []
    (tmp_path / "link").symlink_to("/usr")  # not followed: /usr is larger than the limit
    watchdog = Watchdog(lambda: ended.append(True), Limits(scratch=str(tmp_path), scratch_bytes=1_000_000), 60)
    watchdog.start()
    time.sleep(1.2)
    watchdog.stop()
    assert (ended, watchdog.reason) == ([], "")


LONG = "x" * 250  # 17 of them are a path that no system call takes


@pytest.fixture
def hide(tmp_path):
    """hide(levels, name, mode) puts 2 MB into folders inside folders, the way a script can: one chdir at a time."""

    def make(levels, name, mode=0o777):
        code = (
            "import os, sys\nos.umask(0)\n"
            f"for _ in range({levels}):\n    os.mkdir({name!r})\n    os.chdir({name!r})\n"
            "open('big', 'wb').write(bytes(2_000_000))\n"
            f"os.chdir({str(tmp_path)!r})\nos.chmod({name!r}, {mode})\n"
        )
        subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)
        return tmp_path

    yield make
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def watched(folder, seconds=20):
    ended = []
    watchdog = Watchdog(lambda: ended.append(True), Limits(scratch=str(folder), scratch_bytes=1_000_000), seconds)
    watchdog.start()
    watchdog.join(60)
    return watchdog.reason


@pytest.mark.parametrize(("levels", "name"), [(DEEPEST, "a"), (30, LONG), (1500, "a"), (1500, LONG)])
def test_nothing_hides_from_the_watchdog(hide, levels, name):
    reason = watched(hide(levels, name))
    assert reason.endswith("beyond 1,000,000 bytes" if levels <= DEEPEST else f"nested more than {DEEPEST} deep")


def test_a_folder_that_cannot_be_read_is_over_the_limit(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    honest = os.scandir

    def refusing(handle):
        if os.readlink(f"/proc/self/fd/{handle}").endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return honest(handle)

    monkeypatch.setattr("verify.sandbox.scratch.os.scandir", refusing)
    assert watched(tmp_path).endswith("scratch folder that cannot be measured: Permission denied")


def test_what_vanishes_meanwhile_is_nothing(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).mkdir()
    honest = os.open

    def vanishing(path, *arguments, **options):
        if options.get("dir_fd") is not None:
            raise FileNotFoundError(path)
        return honest(path, *arguments, **options)

    monkeypatch.setattr("verify.sandbox.scratch.os.open", vanishing)
    assert watched(tmp_path, 1.2) == "took longer than the time limit of 1.2 s"


def test_a_scratch_folder_is_removed_whatever_it_holds(tmp_path):
    """Deeper than Python's recursion and any path, closed folders, links, pipes, names that are no text."""
    code = """
import os
os.symlink("/", "root"); os.mkfifo("pipe"); open(b"\\xff\\x1b", "w").close(); os.mkdir(b"\\xfe")
for name in ("b" * 250, "a"):
    here = os.getcwd()
    for _ in range(1500):
        os.mkdir(name); os.chdir(name); open("file", "w").close(); os.mkdir("beside")
    os.chmod(".", 0)
    os.chdir(here)
os.chmod("a", 0)
"""
    with scratch_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not LINUX or os.geteuid() != 0, reason="starts a process as another user")
def test_another_user_removes_closed_folders_too(tmp_path):
    for parent in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(0o777)
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(sandbox.__file__).parents[2])!r})
from pathlib import Path
from verify.sandbox.scratch import scratch_folder
os.setgid(65534); os.setuid(65534)  # not before, or Python itself may lie where nobody may read
with scratch_folder(Path({str(tmp_path)!r})) as folder:
    os.makedirs(folder / "a/b/c"); os.chmod(folder / "a/b", 0); os.chmod(folder / "a", 0); os.mkdir(folder / "d", 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.iterdir()) == []


def test_threads_are_not_limited_for_root(monkeypatch):
    """RLIMIT_NPROC binds every user but root."""
    monkeypatch.setattr("resource.setrlimit", lambda which, limits: None)
    for user, missing in ((0, OF_ROOT), (1000, [])):
        monkeypatch.setattr(sandbox.os, "getuid", lambda user=user: user)
        assert sandbox._limit_resources(Limits(scratch="/s")) == missing
