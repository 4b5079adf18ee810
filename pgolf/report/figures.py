"""Facts -> figures: each a picture with the same numbers as a table."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from codec.budget import PARAMETER_GOLF
from pgolf.report import byte_pictures, run_pictures
from pgolf.report.byte_pictures import Size
from pgolf.report.facts import (
    ArtifactFacts,
    CodeFacts,
    Histogram,
    Phase,
    Report,
    RunFacts,
    SeedFacts,
    TensorFacts,
    TextFacts,
)
from pgolf.report.run_pictures import STYLES, Curve
from pgolf.report.svg import Drawing

SHARE = 0.004  # of the artifact's bytes: roles below are not in the pictures by layer, but in their table
NEAR = 0.03  # of the cap: sizes that are all nearer would be bars of one length
FEW = 4  # runs whose every phase is in the picture
ROLES = 12  # with a histogram each
LOSSES = 24  # tensors with a row in the picture of losses


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are shown; those of the first column name their row."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """draw: width in pixels -> the picture.  legend: (class, words) of its colours.  note: how to read it."""

    title: str
    note: str
    draw: Callable[[float], Drawing]
    table: Table
    legend: tuple[tuple[str, str], ...] = ()


def cap_figure(report: Report) -> Figure | None:
    """All sizes that are known against the cap."""
    sizes: list[Size] = []
    several = len(report.subjects) > 1
    for each in report.subjects:
        runs = each.seeds.runs if each.seeds else ()
        if each.kind == "runs":
            group = each.name if several else ""
            sizes += [
                Size(group=group, name=run.name, parts=(("levels", run.total_bytes),), total=run.total_bytes)
                for run in runs
                if run.total_bytes is not None
            ]
        elif each.total_bytes is not None:
            code = each.code.bytes if each.code else 0
            parts = (*((("code", code),) if code else ()), ("levels", each.total_bytes - code))
            sizes.append(Size(group="", name=each.name, parts=parts, total=each.total_bytes))
    if not sizes:
        return None
    cap = report.subjects[0].cap
    alike = len(sizes) > 1 and all(abs(cap - each.total) < NEAR * cap for each in sizes)
    cells = [
        (
            f"{each.group}: {each.name}" if each.group else each.name,
            f"{dict(each.parts)['code']:,}" if len(each.parts) > 1 else "",
            f"{each.parts[-1][1]:,}" if len(each.parts) > 1 else "",
            f"{each.total:,}",
            f"{cap - each.total:+,}",
        )
        for each in sizes
    ]
    split = any(len(each.parts) > 1 for each in sizes)
    return Figure(
        title="Against the cap",
        note=f"Code and compressed weights may have {cap:,} bytes together, decimal."
        + (" Only the last bytes are shown." if alike else ""),
        draw=partial(byte_pictures.cap_distances if alike else byte_pictures.cap_bars, sizes, cap),
        legend=(("part-code", "code"), ("part-levels", "artifact")) if split and not alike else (),
        table=Table(("", "code", "artifact", "total bytes", "left"), tuple(cells)),
    )


def artifact_figures(artifact: ArtifactFacts, code: CodeFacts | None) -> list[Figure]:
    """Where the bytes are, what each tensor costs and loses, and its levels."""
    figures = [_treemap(artifact, code), _rates(artifact)]
    figures += [found] if (found := _ratios(artifact)) else []
    figures += [found] if (found := _losses(artifact)) else []
    figures += [found] if (found := _levels(artifact)) else []
    return figures


def text_figure(text: TextFacts) -> Figure:
    """Bits per byte of equal parts of the text."""
    rows = [
        (f"{each.first:,}", f"{each.targets:,}", f"{each.bytes:,}", f"{each.nats:.2f}", f"{each.bpb:.4f}")
        for each in text.bins
    ]
    return Figure(
        title="Bits per byte along the text",
        note=f"{text.targets:,} targets in {len(text.bins)} equal parts, in their order"
        + (" (a partial score: the text goes on)" if text.partial else "")
        + f". The line is all of them, {text.bpb:.4f}; parts above it are where the model is bad.",
        draw=partial(run_pictures.along_text, text),
        legend=(("above", "worse than the whole"), ("below", "better")),
        table=Table(("from target", "targets", "bytes", "nats", "bits per byte"), tuple(rows)),
    )


def run_figures(groups: Sequence[SeedFacts]) -> list[Figure]:
    """Curves, phases and seeds of all runs."""
    alone = len(groups) == 1
    runs = [(run.name if alone else f"{group.name}: {run.name}", run) for group in groups for run in group.runs]
    styles = [place for place, group in enumerate(groups) for _ in group.runs] if not alone else [*range(len(runs))]
    figures = [_seeds(groups)] if len(runs) > 1 or any(group.comparison for group in groups) else []
    for title, what, points in (
        ("Training loss", "nats per token", [run.training for _, run in runs]),
        ("Validation on the way", "bits per byte", [run.validation for _, run in runs]),
    ):
        shown = [
            Curve(name=name, points=each, style=style % STYLES)
            for (name, _), each, style in zip(runs, points, styles, strict=True)
            if len(each) > 1
        ]
        legend = [(each.style, each.name) for each in shown]
        if not alone:
            legend = [(style % STYLES, group.name) for style, group in enumerate(groups)]
        if shown:
            figures.append(_curves(title, what, shown, [(f"line-{style}", name) for style, name in legend]))
    figures += [found] if (found := _phases(runs)) else []
    return figures


def _treemap(artifact: ArtifactFacts, code: CodeFacts | None) -> Figure:
    total = artifact.bytes + (code.bytes if code else 0)
    rows = [
        (
            row.name,
            *(
                f"{each:,.0f}"
                for each in (row.level_bytes, row.scale_bytes, row.class_bytes, row.plain_bytes, row.bytes)
            ),
            f"{100 * row.bytes / total:.2f}",
        )
        for row in sorted(artifact.tensors, key=lambda row: (-row.bytes, row.name))
    ]
    rest = [
        ("tables", float(artifact.table_bytes)),
        ("header", artifact.header_bytes),
        ("coder's states and rounding", artifact.lane_bytes),
    ]
    rest += [("code", float(code.bytes))] if code else []
    rest.append(("all", float(total)))
    rows += [(name, "", "", "", "", f"{size:,.0f}", f"{100 * size / total:.2f}") for name, size in rest]
    kinds = [("levels", "levels")]
    kinds += [("scales", "scales and steps")] if any(row.scale_bytes for row in artifact.tensors) else []
    kinds += [("classes", "classes and predictions")] if any(row.class_bytes for row in artifact.tensors) else []
    kinds += [("plain", "not quantized")] if any(row.plain_bytes for row in artifact.tensors) else []
    kinds += [("tables", "tables and header")] + ([("code", "code")] if code else [])
    return Figure(
        title="Where the bytes are",
        note="Area is bytes. A frame is one role of all layers, a number in it the layer. "
        "Bytes are exact code lengths, their fractions rounded here.",
        draw=partial(byte_pictures.byte_treemap, artifact, code),
        legend=tuple((f"part-{kind}", told) for kind, told in kinds),
        table=Table(("tensor", "levels", "scales", "classes", "plain", "bytes", "%"), tuple(rows)),
    )


def _rates(artifact: ArtifactFacts) -> Figure:
    rows = [
        (
            row.name,
            row.stored_as,
            f"{row.weights:,}",
            f"{row.bits_per_weight:.2f}",
            "" if row.entropy_bits_per_weight is None else f"{row.entropy_bits_per_weight:.2f}",
        )
        for row in artifact.tensors
    ]
    values = _by_layer(artifact, lambda rows: 8 * sum(r.bytes for r in rows) / max(sum(r.weights for r in rows), 1))
    return Figure(
        title="Bits per weight, by layer",
        note=f"Levels with scales and classes; {artifact.bits_per_weight:.3f} for the whole artifact, everything "
        "included. The smallest roles are in the table only.",
        draw=partial(byte_pictures.layer_grid, values, 2, "Bits per weight of each role and layer"),
        table=Table(("tensor", "stored as", "weights", "bits per weight", "entropy of its levels"), tuple(rows)),
    )


def _ratios(artifact: ArtifactFacts) -> Figure | None:
    known = [row for row in artifact.tensors if row.snr_db is not None]
    values = _by_layer(artifact, lambda rows: min(r.snr_db for r in rows if r.snr_db is not None), lossy=True)
    if not values:
        return None
    note = "Energy of the weights over that of their error, in decibels; the stronger the colour, the more was lost."
    if artifact.snr_db is not None and math.isfinite(artifact.snr_db):
        note += f" All weights together: {artifact.snr_db:.1f} dB."
    return Figure(
        title="Signal to noise, by layer",
        note=note,
        draw=partial(
            byte_pictures.layer_grid, values, 1, "Signal to noise of each role and layer, dB", dark_is_low=True
        ),
        table=Table(("tensor", "dB"), tuple((row.name, f"{row.snr_db:.1f}") for row in known)),
    )


def _losses(artifact: ArtifactFacts) -> Figure | None:
    known = [row for row in artifact.tensors if row.predicted_nats is not None or row.measured_nats is not None]
    if not known:
        return None
    known.sort(key=lambda row: (-(row.predicted_nats or 0), -(row.measured_nats or 0), row.name))
    measured = [row for row in known if row.measured_nats is not None]
    first = ([row for row in known if row.measured_nats is not None] or known)[:LOSSES]
    first.sort(key=lambda row: (-(row.predicted_nats or 0), row.name))
    predicted = math.fsum(row.predicted_nats or 0.0 for row in known)
    note = f"Predicted to second order from the calibration, {predicted:.5f} nats per token in all."
    if measured:
        note += (
            f" Measured: the float model with this tensor alone rounded, on {artifact.loss_targets:,} targets, for "
            f"{len(measured)} of {len(known)} tensors. Calibration and targets are different text, so small "
            "ones scatter."
        )
    else:
        note += " None was measured."
    rows = [(row.name, _nats(row.predicted_nats), _nats(row.measured_nats) or "not measured") for row in known]
    return Figure(
        title="Loss that rounding adds, by tensor",
        note=note,
        draw=partial(
            byte_pictures.loss_dumbbells, [(row.name, row.predicted_nats, row.measured_nats) for row in first]
        ),
        legend=(("mark-predicted", "predicted"), *((("mark-measured", "measured"),) if measured else ())),
        table=Table(("tensor", "predicted, nats per token", "measured"), tuple(rows)),
    )


def _levels(artifact: ArtifactFacts) -> Figure | None:
    shown = artifact.histograms[:ROLES]
    if not shown:
        return None
    rows = []
    for each in artifact.histograms:
        below, above = f"{each.lowest} to {each.first - 1}", f"{_last(each) + 1} to {each.highest}"
        rows += [(each.role, below, f"{each.below:,}")] if each.below else []
        for place, count in enumerate(each.counts):
            first = each.first + place * each.width
            levels = f"{first}" if each.width == 1 else f"{first} to {first + each.width - 1}"
            rows.append((each.role, levels, f"{count:,}"))
        rows += [(each.role, above, f"{each.above:,}")] if each.above else []
    more = len(artifact.histograms) - len(shown)
    return Figure(
        title="Levels",
        note="How often each level is used, over all layers of a role, with the order-0 entropy of a level. Of a "
        "trellis the halves that are coded. The farthest 0.05 % on each side are in the table only."
        + (f" {more} smaller roles are in the table only." if more else ""),
        draw=partial(byte_pictures.histograms, shown),
        table=Table(("role", "level", "weights"), tuple(rows)),
    )


def _last(each: Histogram) -> int:
    """The last level with a bar."""
    return min(each.first + each.width * len(each.counts) - 1, each.highest)


def _by_layer(
    artifact: ArtifactFacts, value: Callable[[list[TensorFacts]], float], *, lossy: bool = False
) -> dict[tuple[str, int | None], float]:
    """Of the roles that matter for the bytes, largest first.  lossy: only tensors with an error."""
    rows = [row for row in artifact.tensors if row.weights and (not lossy or row.snr_db is not None)]
    sizes: dict[str, float] = {}
    cells: dict[tuple[str, int | None], list[TensorFacts]] = {}
    for row in rows:
        sizes[row.role] = sizes.get(row.role, 0.0) + row.bytes
        cells.setdefault((row.role, row.layer), []).append(row)
    large = [role for role, size in sizes.items() if size >= SHARE * artifact.bytes] or list(sizes)[:ROLES]
    order = {role: place for place, role in enumerate(sorted(large, key=lambda role: (-sizes[role], role)))}
    kept = sorted((cell for cell in cells if cell[0] in order), key=lambda cell: (order[cell[0]], cell[1] or 0))
    return {cell: value(cells[cell]) for cell in kept}


def _seeds(groups: Sequence[SeedFacts]) -> Figure:
    comparison = next((each.comparison for each in groups if each.comparison), None)
    note = (
        "A dot is a seed, the tall line their mean. With 99 % the true mean lies left of the band's end (Student's t)."
    )
    if comparison and comparison.threshold is not None:
        note += (
            f" A record asks for {PARAMETER_GOLF.record_nats} nats per token beyond what is to be beaten at p < "
            f"{PARAMETER_GOLF.record_p}: the band has to end left of its red line."
        )
    rows = []
    for group in groups:
        rows += [
            (f"{group.name}: {run.name}", f"{run.bpb:.6f}", _shown(run.loss, ".6f"), run.label) for run in group.runs
        ]
        rows.append((f"{group.name}: mean", f"{group.mean:.6f}", "", ""))
        rows += [(f"{group.name}: sample deviation", f"{group.sd:.6f}", "", "")] if group.sd is not None else []
        rows += [(f"{group.name}: 99 % below", f"{group.bound:.6f}", "", "")] if group.bound is not None else []
        if group.comparison:
            rows.append((f"{group.name}: to beat", f"{group.comparison.against.mean:.6f}", "", ""))
            threshold = group.comparison.threshold
            rows += [(f"{group.name}: record below", f"{threshold:.6f}", "", "")] if threshold is not None else []
            rows += [
                (
                    f"{group.name}: p of the {test.name} test, {'with' if test.shifted else 'without'} the shift",
                    f"{test.p:.3g}",
                    "",
                    "significant" if test.significant else "not significant",
                )
                for test in group.comparison.tests
            ]
    return Figure(
        title="Seeds",
        note=note,
        draw=partial(run_pictures.seeds, groups),
        table=Table(("", "bits per byte", "nats per token", "score"), tuple(rows)),
    )


def _curves(title: str, what: str, runs: Sequence[Curve], legend: Sequence[tuple[str, str]]) -> Figure:
    timed = all(point.seconds is not None for run in runs for point in run.points[1:])
    most = max((point.seconds or 0.0 for run in runs for point in run.points), default=0.0)
    limit = float(PARAMETER_GOLF.train_seconds) if timed and most > PARAMETER_GOLF.train_seconds / 10 else None
    rows = [
        (run.name, f"{point.step:,}", "" if point.seconds is None else f"{point.seconds:,.1f}", f"{point.value:.4f}")
        for run in runs
        for point in run.points
    ]
    return Figure(
        title=title,
        note=f"As logged, over {'the seconds of training' if timed else 'steps: the logs state no time'}; "
        "values of the first steps may lie above the picture.",
        draw=partial(run_pictures.curves, runs, what, by_time=timed, limit=limit),
        legend=tuple(legend),
        table=Table(("run", "step", "seconds", what), tuple(rows)),
    )


def _phases(runs: Sequence[tuple[str, RunFacts]]) -> Figure | None:
    rows = [(name, phase) for name, run in runs for phase in run.phases]
    if not rows:
        return None
    limits = {"train": float(PARAMETER_GOLF.train_seconds), "eval": float(PARAMETER_GOLF.eval_seconds)}
    cells = [
        (run, each.name, f"{each.seconds:,.1f}", f"{limits[each.kind]:,.0f}" if each.kind in limits else "")
        for run, each in rows
    ]
    few = len(runs) <= FEW
    main = [
        (run, each) for run, each in rows if few or each in _main_phases([one for name, one in rows if name == run])
    ]
    return Figure(
        title="Seconds",
        note="What the logs time, against the seconds that the rules allow on 8 H100: "
        f"{PARAMETER_GOLF.train_seconds} for training, {PARAMETER_GOLF.eval_seconds} for the evaluation."
        + ("" if few else " Single passes are in the table only."),
        draw=partial(run_pictures.phase_bars, main, limits),
        legend=tuple(
            (f"phase-{kind}", told)
            for kind, told in (("train", "training"), ("eval", "scores of the artifact"), ("other", "other"))
            if any(phase.kind == kind for _, phase in main)
        ),
        table=Table(("run", "phase", "seconds", "allowed"), tuple(cells)),
    )


def _main_phases(phases: Sequence[Phase]) -> list[Phase]:
    """Training, and the longest of what counts as evaluation: all of it, where there are several passes."""
    scores = [phase for phase in phases if phase.kind == "eval"]
    longest = [max(scores, key=lambda phase: phase.seconds)] if scores else []
    return [phase for phase in phases if phase.kind == "train"] + longest


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.3e}"


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
