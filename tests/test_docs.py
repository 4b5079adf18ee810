"""The pages keep their form, and what they name exists.

python -m tests.test_docs --write     # write plugins of tests/extensions and a script into docs/extending.md
"""

import ast
import doctest
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pgolf import reference
from pgolf.__main__ import COMMANDS, root

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")),
]
TOP = ("codec", "trainer", "packager", "verify", "pgolf", "benchmarks", "tests", "docs")
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
EXTENDING = ROOT / "docs" / "extending.md"
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPTS = "verify/submission_gallery/scripts"
PLUGIN = re.compile(rf"^(```python ((?:tests/extensions|{SCRIPTS})/\S+)\n)(.*?)^```$", re.MULTILINE | re.DOTALL)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def headings(text: str) -> set[str]:
    """As GitHub turns them into anchors."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def named_paths(text: str) -> set[str]:
    """What a page names as a file or folder of the toolkit, patterns included."""
    words = {word.rstrip(".,:") for code in CODE.findall(text) for word in code.split()}
    return {word for word in words if re.match(rf"({'|'.join(TOP)})/[\w./*-]*$", word)}


def named_modules(text: str) -> set[str]:
    """What a page names as a module, or as a name in one."""
    words = {word for code in CODE.findall(text) for word in re.findall(r"[\w.]+", code)}
    return {word for word in words if re.match(rf"({'|'.join(TOP)})(\.[A-Za-z_]\w*)+$", word)}


def command_lines(text: str) -> list[list[str]]:
    """The `pgolf` commands in a page's indented, fenced and inline code; a pipe or comment ends one."""
    joined = text.replace("\\\n", " ")
    lines = re.findall(r"^(?:    |\$ )(pgolf .*)$", joined, re.MULTILINE)
    lines += [code for code in CODE.findall(joined) if code.startswith("pgolf ")]
    return [shlex.split(re.split(r" [|>#] ?|  +", line)[0], comments=True)[1:] for line in lines]


@each_page
def test_no_line_is_longer_than_120_characters(page):
    """But for the rows of docs/threats.md: its sentences stand in a table, and Markdown cannot wrap a row."""
    rows = page.name == "threats.md"
    lines = enumerate(page.read_text().splitlines(), 1)
    long = [number for number, line in lines if len(line) > 120 and not (rows and line.startswith("| "))]
    assert not long


def test_the_readme_is_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text().splitlines()) < 100


@each_page
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        to = (page.parent / file).resolve() if file else page
        assert to.exists(), target
        assert not anchor or anchor in headings(to.read_text()), target


def test_every_page_can_be_found_from_the_readme():
    linked = {(ROOT / target).resolve() for target in LINK.findall((ROOT / "README.md").read_text())}
    assert set(PAGES) - {ROOT / "README.md"} <= linked


@each_page
def test_named_files_exist(page):
    for path in named_paths(page.read_text()):
        assert list(ROOT.glob(path.rstrip("/"))), path


@each_page
def test_named_modules_exist(page):
    for name in named_modules(page.read_text()):
        assert is_name(name), name


def is_name(dotted: str) -> bool:
    """Whether it is a module, or a name that a module binds at its top level or in a class."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        file = ROOT.joinpath(*parts[:count])
        source = file.with_suffix(".py") if file.with_suffix(".py").is_file() else file / "__init__.py"
        if source.is_file():
            text, rest = source.read_text(), parts[count:]
            return all(re.search(rf"\b{re.escape(name)}\b", text) for name in rest)
    return ROOT.joinpath(*parts).is_dir()


@each_page
def test_commands_and_their_options_exist(page):
    top = click.Context(root, info_name="pgolf")
    for words in command_lines(page.read_text()):
        options = {name for option in root.params for name in (*option.opts, *option.secondary_opts)}
        command = next((word for word in words if word in COMMANDS), None)
        if command:
            found = root.get_command(top, command)
            options |= {name for option in found.params for name in (*option.opts, *option.secondary_opts)}
        else:
            assert not words or words[0].startswith(("-", "[", "COMMAND")), words
        unknown = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} - options
        assert not unknown - {"--help", "-h"}, words


def test_the_reference_is_what_the_commands_say():
    assert (ROOT / "docs" / "cli.md").read_text() == reference.page(), "python -m pgolf.reference > docs/cli.md"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_has_every_option(command):
    found = root.get_command(click.Context(root, info_name="pgolf"), command)
    section = reference.page().split(f"\n## pgolf {command}\n")[1].split("\n## ")[0]
    assert f"\n    pgolf {command} " in section
    assert "\nExample" in section
    for option in found.params:
        if isinstance(option, click.Option):
            assert re.search(rf"^- `[^`]*{re.escape(option.opts[-1])}\b", section, re.MULTILINE), option.name


def test_exit_codes_are_those_of_the_errors():
    from codec.errors import CodecError, EnvironmentLacks, InputError, LimitError, UsageError

    codes = {int(code) for code, _ in reference.exit_codes()}
    raised = {each.exit_code for each in (CodecError, EnvironmentLacks, InputError, LimitError, UsageError)}
    assert codes == {0, 130} | raised


def test_the_readme_s_example_prints_what_it_shows():
    tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried.attempted > 5
    assert not tried.failed


def plugin(file: str) -> str | None:
    """The text of a plugin of tests/extensions: a file of its own, or the PLUGIN that a test writes into one."""
    text = (ROOT / file).read_text()
    if not Path(file).name.startswith("test_"):
        return text
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["PLUGIN"]:
            return ast.literal_eval(node.value).strip() + "\n"
    return None


def with_plugins(page: str) -> str:
    return PLUGIN.sub(lambda block: f"{block[1]}{plugin(block[2]) or block[3]}```", page)


def test_the_plugins_shown_are_those_that_the_tests_run():
    page = EXTENDING.read_text()
    assert page == with_plugins(page), "python -m tests.test_docs --write"
    shown = [(file, text) for _, file, text in PLUGIN.findall(page)]
    files = {f"tests/extensions/{path.name}" for path in (ROOT / "tests/extensions").glob("[a-z]*.py")}
    scripts = {f"{SCRIPTS}/{path.name}" for path in (ROOT / SCRIPTS).glob("[a-z]*.py")}
    assert {file for file in files if plugin(file)} <= {file for file, _ in shown} <= files | scripts
    for file, text in shown:
        if plugin(file) is None:  # registered inside the test, where it is indented
            source = [line.strip() for line in (ROOT / file).read_text().splitlines() if line.strip()]
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            assert any(source[at : at + len(lines)] == lines for at in range(len(source))), file


def test_the_diffs_shown_apply(tmp_path):
    """To a copy of the files that they name."""
    git = shutil.which("git")
    if not git:
        pytest.skip("needs git")
    diffs = DIFF.findall(EXTENDING.read_text())
    assert len(diffs) >= 5
    for diff in diffs:
        for name in re.findall(r"^--- a/(\S+)$", diff, re.MULTILINE):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
        done = subprocess.run([git, "apply", "-"], input=diff, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{diff}{done.stderr}"
        for name in re.findall(r"^\+\+\+ b/(\S+\.py)$", diff, re.MULTILINE):
            compile((tmp_path / name).read_text(), name, "exec")


def test_these_tests_see_what_is_wrong():
    page = (
        "`codec/no_such.py`, `codec.decoder.no_such`, `codec.decoder.decode`, `verify/audit/`, `pgolf pack --no-such`"
    )
    assert named_paths(page) == {"codec/no_such.py", "verify/audit/"}
    assert named_modules(page) == {"codec.decoder.no_such", "codec.decoder.decode"}
    assert (is_name("codec.decoder.no_such"), is_name("codec.decoder.decode")) == (False, True)
    assert command_lines(page + "\n    pgolf measure X --plot a.png  # draw\n") == [
        ["measure", "X", "--plot", "a.png"],
        ["pack", "--no-such"],
    ]


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], __doc__
    EXTENDING.write_text(with_plugins(EXTENDING.read_text()))
