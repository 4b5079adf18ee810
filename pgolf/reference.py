"""docs/cli.md, printed from the commands themselves: `python -m pgolf.reference > docs/cli.md`."""

import inspect
import re
import textwrap
from collections.abc import Iterator

import click

from pgolf import __main__
from pgolf.__main__ import COMMANDS, root

WIDTH = 118  # no line of docs/ is longer than 120
# What stays as it is (code, a default in brackets); what Markdown would read as emphasis or as a tag.
PLAIN_OR_MARKED = re.compile(r"(`[^`]*`|\[[^\]]*\])|([^\s,;]*[*<][^\s,;]*[^\s,;.])")

HEAD = """\
# Command line

`python -m pgolf.reference > docs/cli.md` writes this page from the commands. A test compares the two.

A command prints a table on stdout. With `--json` it prints one object instead.
Progress and notes go to stderr. An error is one sentence on stderr.
Every command has `--help`.

| exit code | meaning |
| --- | --- |
"""


def page() -> str:
    """The whole page, ending in a newline."""
    top = root.context_class(root, info_name="pgolf", **root.context_settings)
    sections = [*_section(root, top, "")]
    for name, (_, summary) in COMMANDS.items():
        command = root.get_command(top, name)
        assert command is not None
        sections += _section(command, command.context_class(command, info_name=name, parent=top), summary)
    return "\n\n".join([HEAD + "\n".join(f"| {code} | {meaning} |" for code, meaning in exit_codes()), *sections, ""])


def exit_codes() -> list[tuple[str, str]]:
    """(code, meaning) as the docstring of pgolf/__main__.py lists them."""
    _, _, listed = (__main__.__doc__ or "").partition("Exit codes: ")
    return [(code, " ".join(meaning.split())) for code, meaning in re.findall(r"(\d+) ([^;.]+)", listed)]


def _section(command: click.Command, context: click.Context, summary: str) -> Iterator[str]:
    yield f"## {context.command_path}"
    if summary:
        yield _wrapped(summary)
    yield f"    {' '.join([context.command_path, *command.collect_usage_pieces(context)])}"
    for block in inspect.cleandoc(command.help or "").split("\n\n"):
        example = block.startswith("\b\n")  # click's mark of lines to keep
        yield _example(block) if example else _wrapped(" ".join(block.split()))
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    yield "\n".join(_option(option, context) for option in options)


def _example(block: str) -> str:
    title, *lines = block.removeprefix("\b\n").splitlines()
    return f"{title}\n\n" + textwrap.indent(textwrap.dedent("\n".join(lines)), "    ")


def _option(option: click.Option, context: click.Context) -> str:
    names, text = option.get_help_record(context) or ("", "")
    names = re.sub(r"(INTEGER|FLOAT) RANGE", r"\1", names)  # the range stands behind the text
    return _wrapped(f"- `{names}`" + (f": {text}" if text else ""), "  ")


def _wrapped(text: str, indent: str = "") -> str:
    marked = PLAIN_OR_MARKED.sub(lambda found: found[1] or f"`{found[2]}`", text)
    return textwrap.fill(marked, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    click.echo(page(), nl=False)
