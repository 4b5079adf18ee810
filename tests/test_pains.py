"""docs/pains.md runs: each of its commands prints what the page shows, in the folder that tests/pains_folder.py makes.

python -m tests.test_pains --write     # run them and write what they print into the page
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.pains_folder import make
from tests.test_tutorial import folded, masked

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pains.md"
# Exit code, command with lines that end in a backslash, output.
BLOCK = re.compile(r"^```console( exit=\d+)?\n\$ ((?:.*\\\n)*.*)\n((?:.*\n)*?)```$", re.MULTILINE)
PAINS = 15


class Folder:
    """Runs command lines of the page: `pgolf ...`, and perhaps ` | ` a filter.  What was run is not run again."""

    def __init__(self, path: Path, pgolf) -> None:
        self.path, self.pgolf, self.done = path, pgolf, {}

    def run(self, line: str) -> tuple[int, str]:
        """(exit code of pgolf, standard output behind the filter)"""
        command, _, filters = re.sub(r" *\\\n *", " ", line).partition(" | ")
        if command not in self.done:
            program, *words = shlex.split(command)
            assert program == "pgolf"
            with patch.dict(os.environ, COLUMNS="120"):  # a filter takes the lines as they are folded
                self.done[command] = self.pgolf(*words, cwd=self.path)
        done = self.done[command]
        assert done.returncode in (0, 1), done.stderr
        if not filters:
            return done.returncode, done.stdout
        shell = ["bash", "-c", filters]
        return done.returncode, subprocess.run(shell, input=done.stdout, capture_output=True, text=True).stdout


def played(page: str, folder: Folder) -> str:
    """The page with the outputs and exit codes of now."""

    def block(match: re.Match[str]) -> str:
        code, printed = folder.run(match[2])
        return f"```console{f' exit={code}' if code else ''}\n$ {match[2]}\n{folded(printed)}```"

    return BLOCK.sub(block, page)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pgolf) -> Folder:
    path = tmp_path_factory.mktemp("pains")
    make(path, pgolf)
    return Folder(path, pgolf)


def test_every_pain_has_a_command_and_its_output():
    page = PAGE.read_text()
    sections = re.split(r"^## \d+\. ", page, flags=re.MULTILINE)[1:]
    assert re.findall(r"^## (\d+)\. ", page, re.MULTILINE) == [str(number + 1) for number in range(PAINS)]
    assert [len(BLOCK.findall(section)) for section in sections] == [1] * PAINS
    assert all(output for _, _, output in BLOCK.findall(page))
    assert page.count("```console") == PAINS


@pytest.mark.parametrize("number", range(1, PAINS + 1))
def test_it_prints_what_the_page_shows(folder, number):
    shown = BLOCK.findall(PAGE.read_text())[number - 1]
    code, printed = folder.run(shown[1])
    assert masked(folded(printed)) == masked(shown[2]), "python -m tests.test_pains --write"
    assert f"{f' exit={code}' if code else ''}" == shown[0]


def process(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = str(PAGE.parents[1])
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.run(
        [sys.executable, "-m", "pgolf", *words], cwd=cwd, capture_output=True, text=True, env=environment
    )


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], __doc__
    with tempfile.TemporaryDirectory() as temporary:
        started = time.perf_counter()
        make(Path(temporary), process)
        PAGE.write_text(played(PAGE.read_text(), Folder(Path(temporary), process)))
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
