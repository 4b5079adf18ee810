"""The pages keep their form, and what they name exists."""

import doctest
import re
import shlex
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
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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
    long = [number for number, line in enumerate(page.read_text().splitlines(), 1) if len(line) > 120]
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
