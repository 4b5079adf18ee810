"""The settings a script was run with, as the command in its README or log states them: NAME=value before python."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from codec.errors import InputError
from verify.submission.byte_count import MAIN

ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=")
READ = 1 << 20  # characters of a file: the command stands at the top of a README and of a log
NAMES = ("README.md", "*.md", "*.log", "*.txt")


def settings(folder: Path) -> tuple[dict[str, str], str]:
    """(environment, name of the file that states it) of the first run command with assignments; ({}, "") without.

    Values that a shell would compute ($SEED) are left out.  `export` lines before the command count as well.

    Raises: InputError when a file cannot be read.
    """
    return stated([path for name in NAMES for path in sorted(folder.glob(name)) if path.is_file()])


def stated(files: Iterable[Path]) -> tuple[dict[str, str], str]:
    """The same of files, the first that states any."""
    for path in dict.fromkeys(files):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                found = _first_command(file.read(READ))
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
        if found:
            return found, path.name
    return {}, ""


def _first_command(text: str) -> dict[str, str]:
    exported: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        words = _words(line)
        assigned = dict(_assignments(words))
        if words[:1] == ["export"]:
            exported |= assigned
        elif any(Path(word).name == MAIN for word in words) and (assigned or exported):
            return exported | assigned
    return {}


def _words(line: str) -> list[str]:
    """The words of a shell command, without the prompt or bullet before it; [] for what is none."""
    if "=" not in line and MAIN not in line:
        return []
    try:
        words = shlex.split(line.strip().strip("`"))
    except ValueError:
        return []
    while words and words[0] in ("$", ">", "-", "*", "env"):
        del words[0]
    return words


def _assignments(words: list[str]) -> Iterator[tuple[str, str]]:
    """Those before the program; a word that is neither an assignment nor `export` is the program."""
    for word in words[1:] if words[:1] == ["export"] else words:
        if not ASSIGNMENT.match(word):
            return
        name, _, value = word.partition("=")
        if "$" not in value:
            yield name, value
