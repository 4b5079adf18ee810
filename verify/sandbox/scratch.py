"""The folder that a submission's process may write to: measured from outside while it runs, removed whatever it holds.

Foreign code makes what it likes there: folders thousands deep, names that add up to paths no system call takes, closed
folders, pipes.  So everything goes by descriptors of open folders, never by paths.
"""

import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from tempfile import mkdtemp

from verify.sandbox.confine import Limits

ENTRIES = 10_000  # files and folders; an honest script leaves a log
DEEPEST = 64  # levels of folders; each takes one of the 1,024 descriptors that a process usually has
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW  # refuses links, and pipes, which would keep us waiting


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder that is gone after the block."""
    folder = Path(mkdtemp(prefix="pgolf-verify-", dir=parent)).resolve()
    try:
        yield folder
    finally:
        with suppress(OSError):
            _remove(folder)


class Watchdog(threading.Thread):
    """Ends the process, from the parent's side, at its wall-clock limit or when its scratch folder grows too large.

    pid: of the process, whose removed but open files count as well; 0 does not look for any.  reason: what it was ended
    for, "" while it was not.
    """

    def __init__(self, kill: Callable[[], None], limits: Limits, seconds: float, pid: int = 0) -> None:
        super().__init__(daemon=True)
        self._kill, self._limits, self._seconds, self._pid = kill, limits, seconds, pid
        self._over = threading.Event()
        self.reason = ""

    def run(self) -> None:
        """Look every half second until stopped."""
        end = time.monotonic() + self._seconds
        while not self._over.wait(min(0.5, max(end - time.monotonic(), 0))):
            if time.monotonic() >= end:
                self.reason = f"took longer than the time limit of {self._seconds:g} s"
            else:
                self.reason = self._beyond_scratch()
            if self.reason:
                self._kill()
                return

    def stop(self) -> None:
        """The process is gone; look no more."""
        self._over.set()
        self.join()

    def _beyond_scratch(self) -> str:
        """Why its scratch folder is too large, "" when it is not; what cannot be measured could hide anything."""
        total = _removed(self._pid, self._limits) if self._pid else 0
        try:
            with _opened(self._limits.scratch) as handle:
                for entries, size in enumerate(chain([0], _sizes(handle))):
                    total += size
                    if total > self._limits.scratch_bytes or entries > ENTRIES:
                        return f"filled its scratch folder beyond {self._limits.scratch_bytes:,} bytes"
        except OSError as error:
            return f"left a scratch folder that cannot be measured: {error.strerror}"
        return ""


def _removed(pid: int, limits: Limits) -> int:
    """Bytes on disk of the process's files that have no name any more: those still open, as they are, and those only
    mapped, as large as a file may get, since nobody can look at them.  0 on systems without /proc."""
    sizes, scratch = dict[int, int](), limits.scratch + os.sep
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                place = os.readlink(f"/proc/{pid}/fd/{name}")
                found = os.stat(f"/proc/{pid}/fd/{name}")
                if place.startswith(scratch) and stat.S_ISREG(found.st_mode) and not found.st_nlink:
                    sizes[found.st_ino] = found.st_blocks * 512
        with open(f"/proc/{pid}/maps", errors="replace") as maps:
            for line in maps:
                fields = line.rstrip("\n").split(maxsplit=5)
                if len(fields) == 6 and fields[5].startswith(scratch) and fields[5].endswith(" (deleted)"):
                    sizes.setdefault(int(fields[4]), limits.file_bytes)
    return sum(sizes.values())


@contextmanager
def _opened(path: str | Path, inside: int | None = None) -> Iterator[int]:
    handle = os.open(path, FOLDER, dir_fd=inside)
    try:
        yield handle
    finally:
        os.close(handle)


def _sizes(folder: int, depth: int = 0) -> Iterator[int]:
    """Bytes on disk of every entry below an open folder; links are not followed, what vanishes meanwhile is skipped.

    Raises: OSError for any other folder that cannot be read, and one that lies deeper than DEEPEST.
    """
    if depth > DEEPEST:
        raise OSError(0, f"folders nested more than {DEEPEST} deep")
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    with _opened(entry.name, folder) as inner:
                        yield from _sizes(inner, depth + 1)


def _remove(folder: Path) -> None:
    """Level by level: what lies two folders down moves up to the top, so that no path ever grows.

    Nobody else may write there any more.
    """
    prefix, number = secrets.token_hex(8), count()  # a name that nothing there can have
    with _opened(folder) as top:
        while names := os.listdir(top):
            for name in names:
                if _is_file(name, top):
                    os.unlink(name, dir_fd=top)
                    continue
                os.chmod(name, 0o700, dir_fd=top)
                with _opened(name, top) as inner:
                    for each in os.listdir(inner):
                        if _is_file(each, inner):
                            os.unlink(each, dir_fd=inner)
                        else:
                            os.chmod(each, 0o700, dir_fd=inner)  # to move a folder is to write to it
                            os.rename(each, f"{prefix}{next(number)}", src_dir_fd=inner, dst_dir_fd=top)
                os.rmdir(name, dir_fd=top)
    os.rmdir(folder)


def _is_file(name: str, folder: int) -> bool:
    """Whatever is no folder itself, links to some included."""
    return not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
