"""The rules that findings are about: one table, which docs/rules.md is printed from.

    python -m verify.rules > docs/rules.md

The table is rules.toml; a rule from outside the package is added by `add`:

>>> _ = add(Rule(id="toy.seven", title="No sevens", text="No file has seven bytes.", source="own."))
>>> RULES.pop("toy.seven").title
'No sevens'
"""

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from codec.errors import UsageError
from codec.suggestion import did_you_mean

Command = Literal["verify", "compare", "audit"]
ID = re.compile(r"[a-z]+\.[a-z_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a finding is about.  id: `family.name`.  title: a few words.  text: what passes, fails, warns.

    source: where the rule comes from.  number: short name of an audit's check, such as "T1", in the gallery's table.
    command: the subcommand of pgolf that checks it; one that `verify` and `compare` share is under `compare`.

    Raises: UsageError for an id of another form.
    """

    id: str
    title: str
    text: str
    source: str
    number: str = ""
    command: Command = "verify"

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.id):
            raise UsageError(
                f"`{self.id}` is no id of a rule", hint="it has the form family.name, in small letters without digits"
            )


RULES: dict[str, Rule] = {}  # id -> rule, in the order of the page; filled by `add`


def add(rule: Rule) -> Rule:
    """Append a rule to the table.  Raises: UsageError when its id is taken."""
    if rule.id in RULES:
        raise UsageError(f"rule `{rule.id}` is in the table already: {RULES[rule.id].title}")
    RULES[rule.id] = rule
    return rule


def find(id: str) -> Rule:
    """The rule of that id.  Raises: UsageError when there is none."""
    if id not in RULES:
        hint = did_you_mean(id, RULES) or "add it first, by verify.rules.add"
        raise UsageError(f"no rule `{id}` is in the table of rules", hint=hint)
    return RULES[id]


def _add_table() -> None:
    for row in tomllib.loads(files("verify").joinpath("rules.toml").read_text(encoding="utf-8"))["rule"]:
        add(Rule(**row))


_add_table()

INTRODUCTION = """\
# Rules that `pgolf verify`, `pgolf audit` and `pgolf compare` check

Printed from `verify/rules.toml` by `python -m verify.rules > docs/rules.md`.

Each finding carries one of these ids and a level:

- `pass`: checked, and it holds.
- `fail`: checked, and it does not hold. A single one makes the verdict `fail` (exit code 1).
- `warn`: somebody should look at it.
- `unknown`: could not be decided; the message says why.
- `not stated`: a claim that nobody made, so there was nothing to check.

What cannot be read, or does not belong together, is an error instead of a finding (exit code 3).

Sources: *README* is the README of openai/parameter-golf; *1017* is issue 1017 of openai/parameter-golf (conditions
C1 to C4), community text; *own* is a rule of this toolkit, with its reason.
"""
SECTIONS: dict[Command, str] = {
    "verify": """\
# Rules of submissions

`pgolf verify` runs a submission; it checks the rules of logs and claims as well, when the folder holds a log.
""",
    "compare": """\
# Rules of logs and claims

`pgolf compare` reads training logs and `submission.json`; nothing is run.
""",
    "audit": """\
# Rules of the audit

A submission is sent windows of its own length, with the stride and batch of `pgolf verify`: a script that reads
ahead can behave in windows of another shape. Each finding names a witness (cut, position, both values) and its
coverage. A `pass` means that no violation was found with what was tried; no scorer is called legal.
[gallery.md](gallery.md) shows which check catches which cheat.
""",
}


def page() -> str:
    """docs/rules.md: every rule of the table, by the command that checks it."""
    parts = [INTRODUCTION]
    for command, introduction in SECTIONS.items():
        parts.append(introduction)
        parts += [_entry(rule) for rule in RULES.values() if rule.command == command]
    return "\n".join(parts)


def _entry(rule: Rule) -> str:
    title = f"{rule.number}: {rule.title}" if rule.number else rule.title
    return f"## {rule.id}\n\n*{title}.*\n\n{rule.text.strip()}\nSource: {rule.source.strip()}\n"


if __name__ == "__main__":
    print(page(), end="")
