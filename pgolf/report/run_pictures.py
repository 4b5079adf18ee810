"""Pictures of runs and scores: curves, phases, seeds, and bits per byte along the text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pgolf.report.facts import CurvePoint, Phase, SeedFacts, TextFacts
from pgolf.report.svg import (
    Axis,
    Drawing,
    line,
    node,
    path,
    picture,
    rectangle,
    shortened,
    text_width,
    tick_labels,
    words,
)

STYLES = 6  # of lines, in the page's style sheet: a colour and a dash each
LEFT, BOTTOM = 46.0, 34.0  # pixels for the values of the axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One run's line.  style: which of STYLES."""

    name: str
    points: tuple[CurvePoint, ...]
    style: int


def curves(runs: Sequence[Curve], what: str, width: float, *, by_time: bool, limit: float | None) -> Drawing:
    """A line for each run.  what: the value, with its unit.  by_time: over seconds instead of steps.

    The first twentieth of a run is left out of the vertical range, which it would fill.  limit: seconds allowed.
    """
    height = 280.0 if width > 600 else 240.0
    every = [each for run in runs for each in run.points if not by_time or each.seconds is not None]
    where = [_where(each, by_time) for each in every]
    last = max(where)
    late = [each.value for each in every if _where(each, by_time) >= 0.05 * last] or [each.value for each in every]
    margin = 0.06 * (max(late) - min(late)) or 0.1
    across = Axis(0.0, max(last, limit or 0.0) * 1.01, LEFT, width - 8)
    up = Axis(min(late) - margin, max(late) + margin, height - BOTTOM, 8.0)
    drawn = _frame(across, up, width, height, "seconds of training" if by_time else "step", what)
    if limit:
        drawn += [line(across.at(limit), 8, across.at(limit), height - BOTTOM, "limit")]
        drawn += [words(across.at(limit) - 4, 18, f"{limit:,.0f} s allowed", "end", "strong")]
    for run in runs:
        places = [
            (across.at(_where(each, by_time)), up.at(each.value))
            for each in run.points
            if each.value <= up.high and not (by_time and each.seconds is None)
        ]
        drawn.append(path(places, f"line-{run.style}", run.name))
        if len(places) <= 12:
            drawn += [node("circle", cx=x, cy=y, r=3, class_=f"dot-{run.style}") for x, y in places]
    return picture(width, height, f"{what} of {len(runs)} runs", *drawn)


def phase_bars(rows: Sequence[tuple[str, Phase]], limits: Mapping[str, float], width: float) -> Drawing:
    """rows: (run, phase), those of a run together.  limits: seconds by kind, drawn where the bars are."""
    longest = max([phase.seconds for _, phase in rows] + list(limits.values()))
    left = min(max(text_width(phase.name) for _, phase in rows) + 10, 0.36 * width if width < 600 else 230.0)
    across = Axis(0.0, 1.02 * longest, left, width - 80)
    y, drawn, before = 0.0, list[str](), ""
    for run, phase in rows:
        if run != before:
            y += 18 if before else 0
            drawn.append(words(0, y + 11, shortened(run, width, strong=True), class_="strong"))
            y, before = y + 18, run
        limit = limits.get(phase.kind)
        over = limit is not None and phase.seconds > limit
        end = across.at(phase.seconds)
        drawn.append(words(0, y + 12, shortened(phase.name, left - 8)))
        title = f"{run}, {phase.name}: {phase.seconds:,.1f} s"
        drawn.append(rectangle(left, y + 2, end - left, 13, f"phase-{phase.kind}", title))
        told = f"{phase.seconds:,.1f} s"
        if limit is not None:
            drawn.append(line(across.at(limit), y - 1, across.at(limit), y + 18, "limit"))
            if end < across.at(limit) < end + text_width(told) + 8:  # the number would lie on the line
                end = across.at(limit)
        drawn.append(words(end + 5, y + 12, told, class_="bad" if over else ""))
        y += 19
    return picture(width, y + 4, f"Seconds of {len(rows)} phases", *drawn)


def seeds(groups: Sequence[SeedFacts], width: float) -> Drawing:
    """A row for each recipe: its seeds as dots, their mean, and up to where the mean is with 99 %.

    Vertical lines: what is to be beaten, and in each row the bound that a record has to stay below.
    """
    comparison = next((each.comparison for each in groups if each.comparison), None)
    against = comparison.against.mean if comparison else None
    thresholds = [each.comparison.threshold if each.comparison else None for each in groups]
    values = [run.bpb for each in groups for run in each.runs]
    values += [each.bound for each in groups if each.bound is not None]
    values += [each for each in (against, *thresholds) if each is not None]
    margin = 0.08 * (max(values) - min(values)) or 0.001
    across = Axis(min(values) - margin, max(values) + margin, 12.0, width - 12)
    top = 24.0 if against is not None else 4.0
    bottom = top + 58 * len(groups)
    drawn = []
    for x, text in tick_labels(across, 6 if width > 600 else 3):
        drawn += [line(x, top, x, bottom, "grid"), words(x, bottom + 14, text, "middle", "quiet")]
    if against is not None:
        drawn += _upright(across.at(against), top, bottom, f"to beat {against:.4f}", width, 12, "to-beat")
    for place, (each, threshold) in enumerate(zip(groups, thresholds, strict=True)):
        y = top + 58 * place + 38
        told = f"mean {each.mean:.4f}"
        told += f", band to {each.bound:.4f}" if each.bound is not None and width > 600 else ""
        name = shortened(each.name, width - text_width(told) - 12, strong=True) or "…"
        drawn.append(rectangle(0, y - 32, text_width(name, strong=True) + 4, 16, "plate"))
        drawn.append(rectangle(width - text_width(told) - 4, y - 32, text_width(told) + 4, 16, "plate"))
        drawn.append(words(0, y - 20, name, class_="strong"))
        drawn.append(words(width, y - 20, told, "end", "quiet"))
        if each.bound is not None:
            drawn.append(
                rectangle(across.at(each.mean), y - 6, across.at(each.bound) - across.at(each.mean), 12, "band")
            )
            drawn.append(line(across.at(each.bound), y - 8, across.at(each.bound), y + 8, "bond"))
        if threshold is not None:
            drawn.append(line(across.at(threshold), y - 14, across.at(threshold), y + 14, "limit"))
        drawn.append(line(across.at(each.mean), y - 12, across.at(each.mean), y + 12, "mean"))
        for run in each.runs:
            title = node("title", escape(f"{run.name}: {run.bpb:.6f} bits per byte"))
            drawn.append(node("circle", title, cx=across.at(run.bpb), cy=y, r=5, class_="dot-0 seed"))
    drawn.append(words(width, bottom + 30, "bits per byte", "end", "quiet"))
    return picture(width, bottom + 36, f"Scores of the seeds of {len(groups)} recipes, in bits per byte", *drawn)


def along_text(text: TextFacts, width: float) -> Drawing:
    """Bits per byte of equal parts of the text, with the mean of all."""
    height = 260.0 if width > 600 else 220.0
    values = [each.bpb for each in text.bins]
    across = Axis(0.0, float(text.targets), LEFT, width - 8)
    up = Axis(0.0, 1.05 * max(values), height - BOTTOM, 8.0)
    drawn = _frame(across, up, width, height, "target", "bits per byte")
    base = up.at(0.0)
    for each in text.bins:
        x, end = across.at(each.first), across.at(each.first + each.targets)
        title = f"from target {each.first:,}: {each.bpb:.4f} bits per byte"
        kind = "above" if each.bpb > text.bpb else "below"
        drawn.append(rectangle(x, up.at(each.bpb), max(end - x - 0.4, 0.5), base - up.at(each.bpb), kind, title))
    drawn.append(line(LEFT, up.at(text.bpb), width - 8, up.at(text.bpb), "mean"))
    label = f"all {text.bpb:.4f}"
    drawn.append(rectangle(width - 14 - text_width(label), up.at(text.bpb) - 16, text_width(label) + 6, 14, "plate"))
    drawn.append(words(width - 11, up.at(text.bpb) - 5, label, "end", "strong"))
    return picture(width, height, f"Bits per byte of {len(values)} parts of the text; {text.bpb:.4f} in all", *drawn)


def _where(point: CurvePoint, by_time: bool) -> float:
    return point.seconds or 0.0 if by_time else float(point.step)


def _upright(x: float, top: float, bottom: float, text: str, width: float, y: float, class_: str) -> list[str]:
    """A vertical line with its label above, on whichever side there is room."""
    anchor = "end" if x > width / 2 else "start"
    return [line(x, y - 9, x, bottom, class_), words(x + (-4 if anchor == "end" else 4), y, text, anchor, "strong")]


def _frame(across: Axis, up: Axis, width: float, height: float, below: str, beside: str) -> list[str]:
    """Grid lines with their values; what the axes are."""
    drawn = []
    for y, text in tick_labels(up, 6):
        drawn += [line(LEFT, y, width - 8, y, "grid"), words(LEFT - 6, y + 4, text, "end", "quiet")]
    for x, text in tick_labels(across, 7 if width > 600 else 4):
        drawn.append(words(min(x, width - text_width(text) / 2), height - BOTTOM + 15, text, "middle", "quiet"))
    drawn.append(line(LEFT, up.start, width - 8, up.start, "axis"))
    drawn.append(words(width - 8, height - 4, below, "end", "quiet"))
    drawn.append(words(0, height - 4, f"↑ {beside}", class_="quiet"))
    return drawn
