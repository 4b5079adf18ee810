"""The gallery's table: which check caught what."""

import textwrap
from collections.abc import Mapping

from verify.audit.checks import short_names
from verify.audit.gallery.exhibits import EXHIBITS, Exhibit
from verify.audit.perturbations import Scope
from verify.audit.runner import Audit

CELLS = {"fail": "caught", "warn": "warn", "pass": "ok", "unknown": "-", "not stated": "-"}
WIDTH = 120  # characters of a line, but for the table's


def levels(found: Audit) -> dict[str, str]:
    """rule -> level."""
    return {finding.rule: finding.level for finding in found.findings}


def row(name: str, found: Audit) -> list[str]:
    """The cells of an exhibit, its name first."""
    level = levels(found)
    return [name, *(CELLS[level[rule]] for rule in short_names())]


def wrong(exhibit: Exhibit, found: Audit) -> list[str]:
    """What the audit got wrong: rules that missed a cheat, or that accused (a warning included) an honest scorer."""
    level = levels(found)
    if exhibit.caught_by:
        return [rule for rule in exhibit.caught_by if level[rule] != "fail"]
    return [rule for rule in level if level[rule] in ("fail", "warn")]


def markdown(audits: Mapping[str, Audit], scope: Scope) -> str:
    """The page docs/gallery.md."""
    cheats = {name: found for name, found in audits.items() if EXHIBITS[name].caught_by}
    honest = {name: found for name, found in audits.items() if name not in cheats}
    missed, accused = (
        sum(bool(wrong(EXHIBITS[name], found)) for name, found in some.items()) for some in (cheats, honest)
    )
    head = ["", *short_names().values()]
    names = ", ".join(f"{number} = `{rule}`" for rule, number in short_names().items())
    lines = [
        "# Gallery of cheats",
        "",
        "Small scorers that break a rule each, and small honest ones, under the audit. Written by",
        "`pgolf audit --gallery --out docs/gallery.md`; the scorers are in `verify/audit/gallery`.",
        "",
        f"{len(cheats)} cheats, {missed} missed; {len(honest)} honest scorers, {accused} accused.",
        "`caught`: a violation with a witness; `warn`: reported, breaks no rule by itself; `ok`: no violation found;",
        "`-`: not decided, for want of distributions or because runs differ by themselves.",
        "",
        _line(head),
        _line(["---"] * len(head)),
        *(_line(row(name, found)) for name, found in audits.items()),
        "",
        textwrap.fill(f"{names}.", WIDTH),
        f"Each scorer: {next(iter(audits.values())).coverage['targets']} targets, {scope.cuts} suffixes replaced, "
        f"{scope.sums} positions summed over the vocabulary, {scope.coded} targets coded and decoded.",
    ]
    for title, some in (("Honest", honest), ("Cheats", cheats)):
        lines += ["", f"## {title}", "", *(_entry(EXHIBITS[name]) for name in some)]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _entry(exhibit: Exhibit) -> str:
    caught = f" Must be caught by {', '.join(exhibit.caught_by)}." if exhibit.caught_by else ""
    return textwrap.fill(f"- **{exhibit.name}**: {exhibit.story}{caught}", WIDTH, subsequent_indent="  ")
