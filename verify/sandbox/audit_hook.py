"""Notes what a script tries that the sandbox refuses, so that a caught PermissionError does not hide it.

Python's audit events are evidence, not protection: the kernel refuses in any case (see confine.py), and code that
goes around Python is refused without being noted.
"""

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from verify.sandbox.installation import within

MOST = 20  # attempts that are kept
PROCESSES = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "pty.spawn",
)
CHANGES = (
    "os.remove",
    "os.rename",
    "os.truncate",
    "os.link",
    "os.symlink",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.chown",
)
NETWORK = (
    "socket.__new__",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
)
LOCAL = 1  # AF_UNIX: pairs of sockets inside one process
# Ways to what the toolkit still holds in memory: every object of the process.
OBJECTS = ("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._current_frames")
LISTS = ("os.listdir", "os.scandir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# The standard library's own questions about the machine, which run a program and live without its answer.
PROBES = ("platform.py", os.path.join("ctypes", "util.py"), "uuid.py")


class Attempts:
    """seen: one sentence for each refused attempt since `begin`, with the script's line.

    folder: the script's.  granted: files and folders that may be read beside scratch.
    """

    def __init__(self, scratch: Path, folder: Path, granted: frozenset[str]) -> None:
        self.seen: list[str] = []
        self._scratch, self._folder = str(scratch.resolve()), str(folder)
        self._installed, self._granted = granted, granted | {self._scratch, os.devnull}

    def begin(self) -> None:
        """Watch from now on, and refuse what a pickle asks for and looks into the process; there is no way back."""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class":
            self._note(f"opened a pickle that asks for {arguments[0]}.{arguments[1]}")
            raise PermissionError(
                f"a pickle asks for {arguments[0]}.{arguments[1]}; only tensors and plain values are read"
            )
        if event in OBJECTS:
            if not self._is_installed(sys._getframe(1)):
                self._note(f"looked into the process that runs it ({event})")
                raise PermissionError(f"{event} is refused: a script looks at its own objects only")
        elif event in NETWORK and not (event == "socket.__new__" and arguments[1] == LOCAL):
            self._note(f"used the network ({event})")
        elif event in PROCESSES:
            self._note(f"started a program ({event})")
        elif event == "open" and isinstance(arguments[2], int):
            if arguments[2] & WRITING:
                self._note_outside("write to", arguments[0])
            else:
                self._note_reading("read", arguments[0])
        elif event in LISTS:
            self._note_reading("list", arguments[0])
        elif event in CHANGES:
            self._note_outside(event, arguments[1] if event in ("os.link", "os.symlink") else arguments[0])

    def _note_outside(self, verb: str, path: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        place = os.path.realpath(os.fsdecode(path))
        inside = f"{place}{os.sep}".startswith(
            (self._scratch + os.sep, "/proc/self/")
        )  # a TemporaryFile opens the folder
        if place != os.devnull and not inside:
            self._note(f"tried to {verb} {place[:200]}")

    def _note_reading(self, verb: str, path: Any) -> None:
        """What is there and may not be read, when the script or what it calls asks for it, no import by itself."""
        if not isinstance(path, str | bytes | os.PathLike):
            return
        place = os.path.realpath(os.fsdecode(path))
        if not within(place, self._granted) and os.path.lexists(place) and self._asked_by_script():
            self._note(f"tried to {verb} {place[:200]}")

    def _is_installed(self, frame: FrameType) -> bool:
        file = frame.f_code.co_filename
        return file.startswith("<frozen") or (os.path.isabs(file) and within(file, self._installed))

    def _asked_by_script(self) -> bool:
        frame: FrameType | None = sys._getframe(3)
        while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
            if frame.f_code.co_filename.startswith(self._folder):
                return True
            frame = frame.f_back
        return False

    def _note(self, what: str) -> None:
        frame: FrameType | None = sys._getframe(2)
        line = ""
        while frame is not None:
            file = frame.f_code.co_filename
            if file.endswith(PROBES) and not file.startswith(self._folder):
                return
            if not line and file.startswith(self._folder):
                line = f"{os.path.basename(file)} line {frame.f_lineno}: "
            frame = frame.f_back
        if len(self.seen) < MOST and line + what not in self.seen:
            self.seen.append(line + what)
