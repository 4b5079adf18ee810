"""docs/tutorial.md runs: its commands, in order, in an empty folder, print what the page shows.

python -m tests.test_tutorial --write     # run them and write what they print into the page
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(console|toml)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)  # language, file, text
WIDTH = 120  # longer lines are folded in the page
# What another machine may print otherwise becomes a placeholder on both sides, in this order.
KERNEL = r"(?:sandbox\.missing|audit\.side_channel)"  # rules whose finding depends on the kernel, and on who runs it
PLACEHOLDERS = (
    (rf"(?m)^\w+ +{KERNEL} .*\n(?: {{4}}.*\n)*", ""),
    (rf",? {KERNEL}\b", ""),
    (r"\b[0-9a-f]{16,64}\b", "HASH"),
    (r"[-+]?\d[\d,]*(\.\d+)?(e[-+]\d+)?", "NUMBER"),
    (r"-{2,}", "--"),  # rules of tables, as wide as their numbers
    (r"\s+", " "),  # columns, and folded lines
)


SCRIPT_BYTES = r"(?m)^(train_gpt\.py, bytes|packed, safe|code|main file|codec\.\S+|trainer\.\S+) +([\d,]+)$"


def comparable(output: str) -> str:
    """The bytes of the packed script are the same everywhere, and stay: they go up with every change of a module."""
    return "\n".join([masked(output), *(" ".join(row) for row in re.findall(SCRIPT_BYTES, output))])


def masked(output: str) -> str:
    """The output with placeholders for what another machine may print otherwise."""
    for pattern, placeholder in PLACEHOLDERS:
        output = re.sub(pattern, placeholder, output)
    return output.strip()


def steps(block: str) -> list[tuple[str, str]]:
    """(command, output) of a console block: `$ ` starts a command, a line after one with `\\` at its end goes on."""
    found = re.findall(r"^\$ ((?:.*\\\n)*.*\n)((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert "".join(f"$ {command}{output}" for command, output in found) == block
    return found


def run(command: str, folder: Path) -> str:
    """Standard output of a command line of the page, whose `pgolf` and `python` are this interpreter's."""
    binaries = folder.parent / "bin"
    binaries.mkdir(exist_ok=True)
    for name, arguments in (("pgolf", "-m pgolf"), ("python", "")):
        (binaries / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        (binaries / name).chmod(0o755)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{command}{done.stdout}{done.stderr}"
    return done.stdout


def played(page: str, folder: Path) -> str:
    """The page with the output that its commands have in `folder`; its files are written there."""

    def block(match: re.Match[str]) -> str:
        language, file, text = match.groups()
        if file:
            (folder / file).write_text(text)
        if language == "console":
            text = "".join(f"$ {command}{folded(run(command, folder))}" for command, _ in steps(text))
        return f"```{language}{f' {file}' if file else ''}\n{text}```"

    return BLOCK.sub(block, page)


def folded(output: str) -> str:
    fold = textwrap.TextWrapper(WIDTH, subsequent_indent="    ", break_on_hyphens=False, drop_whitespace=True)
    lines = [line if len(line) <= WIDTH else fold.fill(line) for line in output.splitlines()]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def outputs(page: str) -> list[tuple[str, str]]:
    """Every command of a page with its output, as far as that must be the same everywhere."""
    blocks = [text for language, _, text in BLOCK.findall(page) if language == "console"]
    return [(command, comparable(output)) for text in blocks for command, output in steps(text)]


@pytest.mark.slow
def test_every_command_prints_what_the_page_shows(tmp_path):
    (tmp_path / "work").mkdir()
    page = PAGE.read_text()
    shown, printed = outputs(page), outputs(played(page, tmp_path / "work"))
    assert len(shown) > 12
    assert printed == shown, "python -m tests.test_tutorial --write"


@pytest.mark.parametrize(
    ("shown", "printed", "equal"),
    [
        ("total  41,322\n", "total  9\n", True),
        ("code  14,761\n", "code  14,762\n", False),
        ("codec.errors      591\n", "codec.errors      592\n", False),
        ("verdict: pass\n", "verdict: fail\n", False),
        ("sha256 b0f949fdddabf081  out\n", "sha256 0123456789abcdef  out\n", True),
        ("a\nunknown  sandbox.missing  threads,\n    memory\nb\n", "a\npass  sandbox.missing  all\nb\n", True),
        ("not decided: log.bytes, sandbox.missing\n", "not decided: log.bytes\n", True),
        ("not decided: log.bytes, sandbox.missing\n", "not decided: log.budget\n", False),
        ("bpb  2.5\n", "loss  2.5\n", False),
    ],
)
def test_numbers_may_differ_and_words_may_not(shown, printed, equal):
    assert (comparable(shown) == comparable(printed)) is equal


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], __doc__
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "work").mkdir()
        PAGE.write_text(played(PAGE.read_text(), Path(temporary) / "work"))
