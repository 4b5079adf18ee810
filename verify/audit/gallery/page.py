"""The gallery's table: which check caught what."""

from collections.abc import Mapping

from verify.audit.gallery import EXHIBITS, HONEST, Exhibit
from verify.audit.perturbations import Scope
from verify.audit.runner import Audit

CHECKS = {
    "audit.determinism": "T0",
    "audit.prefix": "T1",
    "audit.self_target": "T2",
    "audit.kraft": "T3",
    "audit.normalization": "T4",
    "audit.coverage": "T5",
    "audit.state": "T6",
    "audit.batch": "T7",
    "audit.structure": "T9",
    "audit.codec": "T10",
    "audit.side_channel": "T11",
    "audit.fresh_process": "T12",
    "audit.bytes": "bytes",
}
CELLS = {"fail": "caught", "warn": "warn", "pass": "ok", "unknown": "-"}


def levels(found: Audit) -> dict[str, str]:
    """rule -> level."""
    return {finding.rule: finding.level for finding in found.findings}


def row(name: str, found: Audit) -> list[str]:
    """The cells of an exhibit, its name first."""
    level = levels(found)
    return [name, *(CELLS[level[rule]] for rule in CHECKS)]


def wrong(exhibit: Exhibit, found: Audit) -> list[str]:
    """What the audit got wrong: rules that missed a cheat, or that accused (a warning included) an honest scorer."""
    level = levels(found)
    if exhibit.caught_by:
        return [rule for rule in exhibit.caught_by if level[rule] != "fail"]
    return [rule for rule in CHECKS if level[rule] in ("fail", "warn")]


def markdown(audits: Mapping[str, Audit], scope: Scope) -> str:
    """The page docs/gallery.md."""
    missed = sum(bool(EXHIBITS[name].caught_by and wrong(EXHIBITS[name], found)) for name, found in audits.items())
    false = sum(bool(not EXHIBITS[name].caught_by and wrong(EXHIBITS[name], found)) for name, found in audits.items())
    head = ["", *CHECKS.values()]
    lines = [
        "# Gallery of cheats",
        "",
        "Small scorers that break a rule each, and small honest ones, under the audit. Written by",
        "`pgolf audit --gallery --out docs/gallery.md`; the scorers are in `verify/gallery`.",
        "",
        f"{len(audits) - len(HONEST)} cheats, {missed} missed; {len(HONEST)} honest scorers, {false} accused.",
        "`caught`: a violation with a witness; `warn`: reported, breaks no rule by itself; `ok`: no violation found;",
        "`-`: not decided, for want of distributions or because runs differ by themselves.",
        "",
        _line(head),
        _line(["---"] * len(head)),
        *(_line(row(name, found)) for name, found in audits.items()),
        "",
        ", ".join(f"{number} = `{rule}`" for rule, number in CHECKS.items()) + ".",
        f"Each scorer: {next(iter(audits.values())).coverage['targets']} targets, {scope.cuts} suffixes replaced, "
        f"{scope.sums} positions summed over the vocabulary, {scope.coded} targets coded and decoded.",
    ]
    for title, honest in (("Honest", True), ("Cheats", False)):
        lines += ["", f"## {title}", ""]
        lines += [_entry(EXHIBITS[name]) for name in audits if honest is not bool(EXHIBITS[name].caught_by)]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _entry(exhibit: Exhibit) -> str:
    caught = f" Must be caught by {', '.join(exhibit.caught_by)}." if exhibit.caught_by else ""
    return f"- **{exhibit.name}**: {exhibit.story}{caught}"
