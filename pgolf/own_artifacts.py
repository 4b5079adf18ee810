"""The artifact that a script's own command writes, found by what is new after it ran."""

import subprocess
from pathlib import Path

from codec.errors import InputError


def artifact_of(command: str, named: Path | None) -> Path:
    """Run a shell command here, with the user's rights, and return the file that it wrote.

    named: the file that it must write.  Without one it must leave exactly one new file in this folder or below.

    Raises: InputError when it fails, or writes no such file.
    """
    before, written = set(_files()), _written(named)
    done = subprocess.run(command, shell=True, stdout=2)  # what it prints is no result of ours
    if done.returncode:
        raise InputError(f"ended with exit code {done.returncode}", where=f"--artifact-from `{command}`")
    if named is not None:
        if not named.is_file() or written == _written(named):
            raise InputError(
                "was not written by the command of --artifact-from",
                where=str(named),
                hint="leave out --artifact-from to take a file as it is",
            )
        return named
    created = sorted({*_files()} - before)
    if len(created) != 1:
        names = ", ".join(map(str, created[:5])) or "none"
        raise InputError(
            f"wrote {len(created)} new files ({names}), and one is the artifact",
            where=f"--artifact-from `{command}`",
            hint="name it with --artifact FILE",
        )
    return created[0]


def _files() -> list[Path]:
    return [path for path in Path().rglob("*") if path.is_file() and not path.is_symlink()]


def _written(path: Path | None) -> int:
    """When, in nanoseconds; 0 for a file that is not there."""
    return path.stat().st_mtime_ns if path is not None and path.is_file() else 0
