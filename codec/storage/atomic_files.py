"""Files that are never half-written: a temporary name beside the target, then one rename."""

import errno
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from codec.errors import EnvironmentLacks, InputError, PgolfError, UsageError

TEMPORARY = ".pgolf-"  # in the names of folders that are not finished: .NAME.pgolf-abcdefgh
_SCARCE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def read_bytes(path: str | Path, limit: int = 1 << 36) -> bytes:
    """The file's content.  limit: bytes; a sparse file has any size it likes, and no model here has the default.

    Raises: InputError when the file is missing, a folder, unreadable, empty or larger than the limit.
    """
    try:
        size = Path(path).stat().st_size
        data = Path(path).read_bytes() if size <= limit else b""
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), hint="check the path") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (ValueError, MemoryError) as error:  # a NUL in its name
        raise InputError(f"cannot be read ({error or 'not enough memory'})", where=str(path)) from None
    if size > limit:
        raise InputError(f"has {size:,} bytes, at most {limit:,} are read", where=str(path))
    if not data:
        raise InputError("is empty (0 bytes)", where=str(path), hint="write it again")
    return data


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace the file in one step: a reader sees the old content or the new one, never a part.

    Raises: as `check_writable`.
    """
    path = Path(path)
    with _output(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def check_writable(path: str | Path) -> None:
    """Find out before long work whether a file can be written to `path`; leaves nothing behind.

    Raises: UsageError when it cannot; EnvironmentLacks when there is no room.
    """
    path = Path(path)
    with _output(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        nearest = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        tempfile.TemporaryFile(dir=nearest).close()


@contextmanager
def new_folder(path: str | Path, *, replaces: Callable[[set[str]], bool] | None = None) -> Iterator[Path]:
    """A folder that appears complete or not at all.

    Yields a temporary folder beside `path`, which may be a link; on a clean exit it takes the name `path`.  A folder
    there is replaced only when it is empty, or holds nothing but files and `replaces` says of the set of their names
    that they prove an earlier output.  What a killed process left of the same folder is removed.

    Raises: UsageError when `path` must not be replaced or cannot be written; EnvironmentLacks when there is no room.
    """
    target = Path(os.path.realpath(path))
    with _output(path):
        if target.exists() and not _replaceable(target, replaces):
            raise UsageError(
                "exists and is not an earlier output of this command",
                where=str(path),
                hint="choose another folder or remove it",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        prefix = f".{target.name}{TEMPORARY}"
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix, ignore_cleanup_errors=True) as place,
            _lock(place),
        ):
            folder = Path(place, "new")
            folder.mkdir()
            yield folder
            if target.exists():
                os.rename(target, Path(place, "old"))
            os.rename(folder, target)


@contextmanager
def within(path: str | Path) -> Iterator[None]:
    """Put the file's name before what an error about its content names, a tensor say."""
    try:
        yield
    except (InputError, UsageError) as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise


def refusal(error: OSError, output: str | Path = "") -> PgolfError:
    """What the operating system answered, as one sentence.  output: what was to be written, when it was that."""
    reason = error.strerror or str(error)
    message = f"cannot be written ({reason})" if output else f"the operating system says: {reason}"
    where = str(output or error.filename or "")
    if error.errno in _SCARCE:
        return EnvironmentLacks(message, where=where, hint="make room on this machine")
    if output:
        return UsageError(message, where=where, hint="choose another place for it")
    return InputError(message, where=where)


@contextmanager
def _output(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise refusal(error, path) from None


def _replaceable(folder: Path, replaces: Callable[[set[str]], bool] | None) -> bool:
    if not folder.is_dir():
        return False
    entries = list(folder.iterdir())
    names = {entry.name for entry in entries}
    return not entries or (replaces is not None and all(entry.is_file() for entry in entries) and replaces(names))


def _sweep(target: Path) -> None:
    for left in target.parent.glob(f".{glob.escape(target.name)}{TEMPORARY}*"):
        with _lock(left) as free:
            if free:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _lock(folder: str | Path) -> Iterator[bool]:
    """Whether this process holds the folder inside.  A killed process holds nothing; False too where no locks are."""
    held, handle = False, -1
    if sys.platform != "win32":
        import fcntl

        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:
            pass
    try:
        yield held
    finally:
        if handle >= 0:
            os.close(handle)
