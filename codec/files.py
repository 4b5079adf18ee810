"""Files that are never half-written: a temporary name beside the target, then one rename."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codec.errors import InputError, UsageError


def read_bytes(path: str | Path) -> bytes:
    """The file's content.

    Raises: InputError when the file is missing, a folder, unreadable or empty.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), hint="check the path") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
    if not data:
        raise InputError("is empty (0 bytes)", where=str(path), hint="write it again")
    return data


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace the file in one step: a reader sees the old content or the new one, never a part."""
    path = Path(path)
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


@contextmanager
def new_folder(path: str | Path, *, replaces: str = "") -> Iterator[Path]:
    """A folder that appears complete or not at all.

    Yields a temporary folder beside `path`; on a clean exit it takes the name `path`.  An existing folder
    there is replaced only when it is empty or holds a file called `replaces` (so it is one of ours).

    Raises: UsageError when `path` exists and must not be replaced.
    """
    path = Path(path)
    if path.exists():
        ours = path.is_dir() and (not any(path.iterdir()) or (replaces and (path / replaces).is_file()))
        if not ours:
            raise UsageError(
                "exists and is not an earlier output of this command",
                where=str(path),
                hint="choose another folder or remove it",
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    os.chmod(temporary, 0o755)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
