"""The page and the table of a run, from its numbers alone: no name of the machine's, no path, no date."""

import json
import math
from collections.abc import Sequence
from itertools import groupby

from pgolf.doctor.cards import peak_flops
from pgolf.doctor.catalog import CHECKS
from pgolf.doctor.outcome import Outcome, Result, Row, Value

UNKNOWN = "-"
NOT_ON_A_CPU = (  # what a dry run leaves open
    "NCCL, FlashAttention, the speed and memory of a card, MFU: there is no card",
    "bfloat16 of a card: the CPU's own stood for it in `precision`; everything else ran in float32",
    "compiled steps: compilation would take longer than all the rest",
    "presets in their own size: models of some hundred thousand weights stood for them",
    "the sandbox with the device files and the driver of CUDA",
)
NEVER = (
    "links between cards: one rank uses none",
    "recipe `best`: its trellis runs on the CPU and takes longer than a check has",
    "a run to its end, and its score",
)
WIDEST = 6  # columns
INTRODUCTION = """\
Written by `pgolf doctor --gpu -o DIR`; the same numbers are in `gpu.json` beside it. `-` is: not measured.
"""


def rows(result: Result) -> list[tuple[str, str, str, str]]:
    """One of each check, for a terminal: name, state, seconds, and what it says in short."""
    return [(each.name, each.state, f"{each.seconds:.1f}", _short(each)) for each in result.outcomes]


def _short(outcome: Outcome) -> str:
    if outcome.error:
        return outcome.error[:80]
    if outcome.measured.wrong:
        return outcome.measured.wrong[0][:80]
    first = outcome.measured.rows[0]
    return ", ".join(f"{name} {shown_value(value)}" for name, value in list(first.items())[:4])


def gpu_page(result: Result) -> str:
    """Markdown, ending in a newline."""
    machine = result.machine
    card = (
        f"{machine.gpus[0].name}, {machine.gpus[0].memory_bytes / 2**30:.0f} GiB, CUDA {machine.cuda_build}"
        if machine.gpus
        else "no NVIDIA GPU"
    )
    about = f"{card}; torch {machine.torch}; Python {machine.python}; {machine.cores} cores; {machine.system}"
    groups = [list(group) for _, group in groupby(result.outcomes, lambda each: each.name.partition(":")[0])]
    sections = [_section(group) for group in groups]
    head = f"# Check of a graphics card\n\n**{result.headline}.**\n\n{about}.\n\n{INTRODUCTION}"
    return "\n".join([head, *_summary(result), *sections, _not_measured(result)])


def _summary(result: Result) -> list[str]:
    states = [(each.name, each.title, each.state, f"{each.seconds:.1f}") for each in result.outcomes]
    total = f"{result.seconds:.0f} of {result.limit:.0f} seconds.\n"
    return [_table(("check", "what", "state", "seconds"), states), total]


def _not_measured(result: Result) -> str:
    """What is open after this run, and why."""
    names = {each.name for each in CHECKS} - {each.name for each in result.outcomes}
    open_questions = [f"{each.name}: {each.error}" for each in result.outcomes if each.error]
    open_questions += [f"{name}: was not asked for" for name in sorted(names)]
    if result.dry:
        open_questions += NOT_ON_A_CPU
    elif peak_flops(result.machine.gpus[0].name) is None:
        open_questions.append("MFU: the peak of this card is not in pgolf/doctor/cards.py")
    return "\n".join(["## Not measured\n", *(f"- {each}" for each in (*open_questions, *NEVER))]) + "\n"


def _section(outcomes: Sequence[Outcome]) -> str:
    """Checks of one kind, whose names agree up to a colon, in one table."""
    kind = outcomes[0].name.partition(":")[0]
    lines = [f"## {kind}: {', '.join(each.title for each in outcomes)}\n"]
    lines += [f"{each.name} {each.state}: {each.error}\n" for each in outcomes if each.error]
    lines += [f"**wrong**, {each.name}: {message}\n" for each in outcomes for message in each.measured.wrong]
    if found := [row for each in outcomes for row in each.measured.rows]:
        lines.append(_rows(found))
    lines += [f"- {note}" for note in dict.fromkeys(note for each in outcomes for note in each.measured.notes)]
    return "\n".join(lines) + "\n"


def _rows(found: Sequence[Row]) -> str:
    """What has more columns than a page is wide stands on its side."""
    names = list(dict.fromkeys(name for row in found for name in row))
    if len(names) <= WIDEST:
        return _table(names, [[shown_value(row.get(name)) for name in names] for row in found])
    first, *others = names
    headers = [first, *(shown_value(row.get(first)) for row in found)]
    return _table(headers, [[name, *(shown_value(row.get(name)) for row in found)] for name in others])


def _table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def shown_value(value: Value) -> str:
    """A number with four digits, an integer with its commas.

    >>> [shown_value(each) for each in (None, 98304, 81.3333, 0.00123456, 1234567.8, "yes")]
    ['-', '98,304', '81.33', '0.001235', '1,234,568', 'yes']
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def as_json_text(result: Result) -> str:
    """The run as a file; numbers that JSON cannot write become null."""
    return json.dumps(_finite(result.to_dict()), indent=1, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
