"""README.md of a record: its tables, and what was found.  Every number is one of the logs or of the files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from codec.budget import PARAMETER_GOLF
from codec.errors import printable
from verify.claims.group_rules import TITLES, Z_NEEDS
from verify.claims.runs import Group
from verify.claims.significance import Comparison, Name
from verify.finding import Finding, worst
from verify.record_folder.run_commands import RunCommands
from verify.submission.byte_count import MAIN, SUMS

ABSENT = "absent"
TESTS: tuple[Name, ...] = ("t", "welch", "z")  # the one that the README is taken to rest on comes first


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the page is about.  code, artifact: bytes of the files; artifact is None when none ships.

    artifact_name, artifact_seed: of what ships, "" and None without.
    """

    said: Mapping[str, str | None]
    group: Group
    comparison: Comparison | None
    against: Sequence[str]
    cap: int
    code: Mapping[str, int]
    artifact: int | None
    artifact_name: str
    artifact_seed: int | None
    commands: RunCommands


def record_page(shown: Shown, findings: Sequence[Finding]) -> str:
    """The whole text.  findings: of every rule that was judged."""
    parts = [
        _head(shown),
        "## Scores",
        _scores(shown.group),
        *(_significance(shown.comparison, shown.against) if shown.comparison else ()),
        "## Sizes",
        _sizes(shown),
        "## Legality",
        _legality(findings),
        "## Run",
        _run(shown.commands),
        "## Verify",
        _verify(shown),
    ]
    return "\n\n".join(parts) + "\n"


def _head(shown: Shown) -> str:
    said, sample, count = shown.said, shown.group.sample, len(shown.group.runs)
    spread = "" if sample.sd is None else f", sample deviation {sample.sd:.8f}"
    lines = [f"# {_plain(said.get('name') or 'Record')}"]
    if said.get("blurb"):
        lines.append(_plain(said["blurb"]))
    by = {"author": "Author", "github_id": "GitHub", "date": "Date", "track": "Track", "hardware": "Hardware"}
    known = [f"{title}: {_plain(said[key])}" for key, title in by.items() if said.get(key)]
    if known:
        lines.append(". ".join(known) + ".")
    mean = f"mean of {count} seeds{spread}" if count > 1 else "of 1 seed"
    lines.append(f"**val_bpb {sample.mean:.8f}**, {mean}. Scores are the last legal ones of the logs beside this page.")
    return "\n\n".join(lines)


def _scores(group: Group) -> str:
    losses = group.losses
    rows = [
        [
            _shown(run.seed, ""),
            _cell(run.label),
            f"{run.bpb:.{run.decimals}f}",
            _shown(run.loss, f".{run.decimals}f"),
            _shown(log.steps, ","),
            _shown(run.train_seconds, ".3f"),
            _shown(run.eval_seconds, ".3f"),
            _shown(run.model_bytes, ","),
            _shown(run.code_bytes, ","),
            _shown(run.total_bytes, ","),
        ]
        for run, log in zip(group.runs, group.logs, strict=True)
    ]
    rows.append(["mean", "", f"{group.sample.mean:.8f}", _shown(losses.mean if losses else None, ".8f"), *[""] * 6])
    if group.sample.sd is not None:
        rows.append(["sd", "", f"{group.sample.sd:.8f}", _shown(losses.sd if losses else None, ".8f"), *[""] * 6])
    heads = (
        "seed",
        "score",
        "bpb",
        "loss",
        "steps",
        "train s",
        "eval s",
        "artifact bytes",
        "code bytes",
        "total bytes",
    )
    note = (
        "All of it as the logs state it: loss in nats per token, sd the sample deviation (n - 1), eval s of every pass "
        "over the packed model."
    )
    return f"{_table(rows, heads, left=2)}\n\n{note}"


def _significance(comparison: Comparison, against: Sequence[str]) -> list[str]:
    ratio = comparison.bpb_per_nat
    rows = [
        [title, _shown(value, ".8f"), _shown(None if value is None or not ratio else value / ratio, ".8f")]
        for title, value in (
            (f"against {', '.join(against)}", comparison.against.mean),
            ("a record is better by", comparison.shift),
            ("so it is below", comparison.threshold),
            ("these are below that by", comparison.margin),
        )
    ]
    parts = ["## Significance", _table(rows, ("", "bits per byte", "nats per token"))]
    tests = [
        outcome for name in TESTS for shifted in (True, False) if (outcome := comparison.test(name, shifted=shifted))
    ]
    if not tests:
        return [*parts, "One run has no deviation, so nothing can be tested."]
    rows = [
        [
            f"{TITLES[test.name]} test",
            f"{PARAMETER_GOLF.record_nats} nats" if test.shifted else "none",
            f"{test.p:.3e}",
            "yes" if test.significant else "no",
            f"{test.statistic:.4f}",
            _shown(test.df, ".3f"),
        ]
        for test in tests
    ]
    parts.append(_table(rows, ("one-sided test", "shift", "p", f"p < {PARAMETER_GOLF.record_p}", "statistic", "df")))
    if len(comparison.sample.values) < Z_NEEDS:
        parts.append(
            f"The z test takes the spread of {len(comparison.sample.values)} runs as exact, so its p is too small."
        )
    return parts


def _sizes(shown: Shown) -> str:
    code, artifact = sum(shown.code.values()), shown.artifact
    rows = [_size("the files here", code, artifact, None if artifact is None else code + artifact, shown.cap)]
    rows += [
        _size(f"the log of seed {run.seed}", run.code_bytes, run.model_bytes, run.total_bytes, shown.cap)
        for run in shown.group.runs
    ]
    table = _table(rows, ("bytes, by", "code", "artifact", "total", "to the cap"))
    files = ", ".join(f"`{_plain(name)}` ({size:,})" for name, size in shown.code.items())
    if artifact is None:
        ships = "No artifact is here, so the sizes of models are what the logs say."
    else:
        best = "the run with the best score" if len(shown.group.runs) > 1 else "the only run"
        ships = (
            f"The artifact, `{_plain(shown.artifact_name)}`, is of seed {shown.artifact_seed}, {_which(shown, best)}."
        )
    return f"The cap is {shown.cap:,} bytes. Code: {files}. {ships}\n\n{table}"


def _which(shown: Shown, best: str) -> str:
    lowest = min(shown.group.runs, key=lambda run: (run.bpb, run.seed))
    return best if lowest.seed == shown.artifact_seed else "the best of the runs whose artifact was given"


def _size(name: str, code: int | None, model: int | None, total: int | None, cap: int) -> list[str]:
    spare = None if total is None else cap - total
    return [name, _shown(code, ","), _shown(model, ",", ABSENT), _shown(total, ",", "-"), _shown(spare, "+,", "-")]


def _legality(findings: Sequence[Finding]) -> str:
    rows = []
    for rule in dict.fromkeys(finding.rule for finding in findings):
        found = [finding for finding in findings if finding.rule == rule]
        level = worst(finding.level for finding in found)
        first = next(finding for finding in found if finding.level == level)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        rows.append([f"`{rule}`", level, _cell(first.message + more)])
    note = (
        "Findings of `pgolf compare` on the logs, and of `pgolf verify` on the files as far as no model is run. None "
        "fails: a record with one that does is not written. `warn` asks to be looked at, `unknown` could not be "
        "decided, `not stated` is a claim that nobody made. The rules stand in the toolkit's docs/rules.md. What logs "
        "cannot show, that the artifact scores so and reads nothing ahead, `pgolf verify` and `pgolf audit` try."
    )
    return f"{_table(rows, ('rule', 'level', 'finding'), left=3)}\n\n{note}"


def _run(commands: RunCommands) -> str:
    lines = ["pip install -r requirements.txt", commands.train, commands.evaluate]
    text = "\n".join(f"    {printable(line)}" for line in lines if line)
    only = "" if commands.train else f"`{MAIN}` scores the artifact; it does not train.\n\n"
    where = "" if "DATA" not in text else "\n\n`DATA` is a folder with the token shards and the tokenizer."
    more = " Other options that the runs were given are not repeated here: their settings are in the logs."
    return f"{only}{text}{where}{more if where else ''}"


def _verify(shown: Shown) -> str:
    cap = "" if shown.cap == PARAMETER_GOLF.total_bytes else f" --cap {shown.cap}"
    lines = [f"sha256sum -c {SUMS}", f"pgolf compare .{cap}"]
    if shown.artifact is not None:
        lines.append(f"pgolf verify . --data DATA{cap}")
    return "\n".join(f"    {line}" for line in lines)


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str], left: int = 1) -> str:
    """Markdown; the first columns to the left, the others, numbers, to the right."""
    sides = ["left"] * left + ["right"] * (len(heads) - left)
    return tabulate(rows, headers=heads, tablefmt="pipe", disable_numparse=True, colalign=sides)


def _cell(text: str) -> str:
    """What others wrote stays inside its cell."""
    return _plain(text).replace("\\", "\\\\").replace("|", "\\|")


def _plain(text: str | None) -> str:
    """On one line, and never markup of its own."""
    return printable(text or "").replace("&", "&amp;").replace("<", "&lt;")


def _shown(value: float | None, form: str, missing: str = "") -> str:
    return missing if value is None else format(value, form)
