"""Pictures of bytes: the treemap, the fit to the cap, a value for each tensor of each layer, and levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pgolf.report.facts import ArtifactFacts, CodeFacts, Histogram, TensorFacts
from pgolf.report.svg import (
    CHARACTER,
    Axis,
    Drawing,
    line,
    node,
    picture,
    rectangle,
    short_bytes,
    shortened,
    text_width,
    tick_labels,
    words,
)
from pgolf.report.treemap import Box, sliced, squarified

SMALLEST = 40.0  # square pixels of a tensor with a rectangle of its own
ALIKE = 1.5  # times as large as the smallest: a role whose tensors are that equal keeps the order of its layers
LABEL = 15.0  # pixels above a group for its name
PARTS = {  # of a tensor: field -> what the legend calls it, which is its class too
    "level_bytes": "levels",
    "scale_bytes": "scales",
    "class_bytes": "classes",
    "plain_bytes": "plain",
}


def byte_treemap(artifact: ArtifactFacts, code: CodeFacts | None, width: float) -> Drawing:
    """Code, header and tables, and each role with its tensors, cut into levels, scales, classes or plain values."""
    height = round(0.46 * width) if width > 600 else 1.35 * width
    everything = Box(0, 0, width, height)
    roles: dict[str, list[TensorFacts]] = {}
    for row in artifact.tensors:
        roles.setdefault(row.role, []).append(row)
    rest = artifact.table_bytes + artifact.header_bytes + artifact.lane_bytes
    total = artifact.bytes + (code.bytes if code else 0)
    scale = width * height / total
    groups = [(name, sum(row.bytes for row in rows), rows) for name, rows in roles.items()]
    small = [group for group in groups if group[1] * scale < 6 * SMALLEST]
    groups = [group for group in groups if group not in small]
    if small:
        rows = [row for _, _, each in small for row in each]
        groups.append((f"{len(rows)} smaller tensors", sum(row.bytes for row in rows), rows))
    groups.append(("tables, header", rest, []))
    groups += [("code", float(code.bytes), [])] if code else []
    groups.sort(key=lambda group: (-group[1], group[0]))
    boxes = squarified([size for _, size, _ in groups], everything)
    drawn = [
        _leaf(name, size, total, box, "code" if name == "code" else "tables")
        if not rows
        else _group(name, size, total, rows, box)
        for (name, size, rows), box in zip(groups, boxes, strict=True)
    ]
    return picture(width, height, f"Treemap of {total:,} bytes, areas by bytes", *drawn)


def _leaf(name: str, size: float, total: float, box: Box, kind: str) -> str:
    inner = box.inside(1.5)
    title = f"{name}: {size:,.0f} bytes, {100 * size / total:.2f} %"
    return rectangle(*inner, f"part-{kind}", title) + _label(name, size, inner)


def _group(name: str, size: float, total: float, rows: list[TensorFacts], box: Box) -> str:
    """A role: a name above its tensors where there is room for it."""
    inner = box.inside(1.5)
    named = inner.width > 5 * CHARACTER and inner.height > 2 * LABEL and len(rows) > 1
    frame = rectangle(*inner, "group", f"{name}: {size:,.0f} bytes, {100 * size / total:.2f} %")
    head = _head(name, size, inner) if named else ""
    inside = inner.inside(1, LABEL) if named else inner
    scale = inside.width * inside.height / size if size else 0.0
    ordered = sorted(rows, key=lambda row: (-row.bytes, row.name))
    if ordered[0].bytes < ALIKE * ordered[-1].bytes:
        ordered.sort(key=lambda row: (row.layer or 0, row.name))
    own = [row for row in ordered if row.bytes * scale >= SMALLEST]
    left = ordered[len(own) :]
    sizes = [row.bytes for row in own] + ([sum(row.bytes for row in left)] if left else [])
    boxes = squarified(sizes, inside)
    drawn = [_tensor(row, cell, alone=not named) for row, cell in zip(own, boxes, strict=False)]
    if left:
        together = Box(*boxes[-1]).inside(0.5)
        drawn.append(rectangle(*together, "part-plain", f"{len(left)} smaller tensors: {sizes[-1]:,.0f} bytes"))
        drawn += [] if named or own else [_label(name, size, together)]
    return frame + head + "".join(drawn)


def _tensor(row: TensorFacts, box: Box, *, alone: bool) -> str:
    cell = box.inside(0.5)
    parts = [(part, getattr(row, field)) for field, part in PARTS.items() if getattr(row, field)]
    boxes = sliced([size for _, size in parts], cell)
    title = f"{row.name}: {row.bytes:,.0f} bytes, " + ", ".join(f"{part} {size:,.0f}" for part, size in parts)
    drawn = [rectangle(*each, f"part-{part}", title) for (part, _), each in zip(parts, boxes, strict=True)]
    name = row.role if alone or row.layer is None else str(row.layer)
    return "".join(drawn) + (_label(name, row.bytes, cell) if boxes else "")


def _head(name: str, size: float, box: Box) -> str:
    text, tail = name.replace("blocks.*.", ""), f"  {short_bytes(size)}"
    whole = text + tail if text_width(text + tail) <= box.width - 8 else _fitting(text, box.width - 8)
    return words(box.x + 4, box.y + 12, whole)


def _label(name: str, size: float, box: Box) -> str:
    """The name, and the bytes below it, where they fit."""
    name = name.replace("blocks.*.", "")
    text = _fitting(name, box.width - 6)
    if not text or box.height < 14:
        return ""
    shown = words(box.x + 4, box.y + 12, text)
    tail = short_bytes(size)
    return shown + (words(box.x + 4, box.y + 25, tail) if box.height > 30 and text_width(tail) < box.width - 6 else "")


def _fitting(name: str, width: float) -> str:
    """A name, or the part of it that tells most: the first word of what is no tensor, the last part of one."""
    short = name.partition(" ")[0].strip(",") if " " in name else f"…{name.rpartition('.')[2]}"
    return next((each for each in (name, short) if text_width(each) <= width), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is held against the cap.  group: of several alike, "" for one alone.  parts: (part, bytes) of the total."""

    group: str
    name: str
    parts: tuple[tuple[str, int], ...]
    total: int


def cap_bars(sizes: Sequence[Size], cap: int, width: float) -> Drawing:
    """One below the other, against a line at the cap."""
    axis = Axis(0.0, float(max(cap, *(each.total for each in sizes))), 0.0, width - 1)
    y, drawn, group = 0.0, list[str](), ""
    for each in sizes:
        if each.group != group:
            group = each.group
            drawn.append(words(0, y + 12, shortened(group, width, strong=True), class_="strong"))
            y += 20
        left = cap - each.total
        told = f"{abs(left):,} {'below' if left >= 0 else 'OVER'} the cap"
        told = f"{each.total:,} bytes, {told}" if width > 600 else told
        room = width - text_width(told) - 14
        drawn.append(words(0, y + 11, shortened(each.name, room) or "…"))
        drawn.append(words(width - 1, y + 11, told, "end", "" if left >= 0 else "bad"))
        drawn.append(rectangle(0, y + 16, axis.at(cap), 18, "track"))
        before = 0.0
        for part, size in each.parts:
            start, before = before, before + size
            bar = (axis.at(start), y + 16, axis.at(before) - axis.at(start), 18.0)
            drawn.append(rectangle(*bar, f"part-{part}", f"{each.name}, {part}: {size:,} bytes"))
        drawn.append(line(axis.at(cap), y + 14, axis.at(cap), y + 36, "limit"))
        y += 46
    label = "; ".join(f"{each.name}: {each.total:,} of {cap:,} bytes" for each in sizes)
    return picture(width, y - 6, label, *drawn)


def cap_distances(sizes: Sequence[Size], cap: int, width: float) -> Drawing:
    """As `cap_bars`, of sizes that are all so near the cap that bars would look alike: a dot each, and the way left."""
    totals = [each.total for each in sizes]
    margin = 0.06 * (max(*totals, cap) - min(*totals, cap)) or 1.0
    told = [f"{abs(cap - total):,} {'left' if total <= cap else 'OVER'}" for total in totals]
    right = width - max(map(text_width, told)) - 8
    left = min(max(text_width(each.name) for each in sizes) + 12, 0.42 * width)
    axis = Axis(min(*totals, cap) - margin, max(*totals, cap) + margin, left, right)
    drawn = [words(axis.at(cap) + 4, 12, f"cap {cap:,}", "end", "strong")]
    y, group = 32.0, ""
    for each, text in zip(sizes, told, strict=True):
        if each.group != group:
            group = each.group
            drawn.append(words(0, y + 4, shortened(group, axis.at(cap) - 8, strong=True), class_="strong"))
            y += 20
        title = node("title", escape(f"{each.name}: {each.total:,} bytes"))
        drawn.append(words(0, y + 4, shortened(each.name, left - 10)))
        drawn.append(line(axis.at(each.total), y, axis.at(cap), y, "bond"))
        drawn.append(node("circle", title, cx=axis.at(each.total), cy=y, r=5, class_="dot-0"))
        drawn.append(words(width, y + 4, text, "end", "" if each.total <= cap else "bad"))
        y += 22
    drawn.append(line(axis.at(cap), 18, axis.at(cap), y - 8, "limit"))
    for x, text in tick_labels(axis, 4 if width > 600 else 2):
        drawn.append(words(x, y + 8, text, "middle", "quiet"))
    return picture(width, y + 14, f"{len(sizes)} sizes and the cap of {cap:,} bytes", *drawn)


def layer_grid(
    values: Mapping[tuple[str, int | None], float], digits: int, label: str, width: float, *, dark_is_low: bool = False
) -> Drawing:
    """A row for each role, a column for each layer.  values: by (role, layer).  dark_is_low: else high is dark."""
    roles = list(dict.fromkeys(role for role, _ in values))
    layers = sorted({layer for _, layer in values if layer is not None})
    columns: list[int | None] = [*layers]
    if any(layer is None for _, layer in values):
        columns.insert(0, None)
    names = {role: role.replace("blocks.*.", "") for role in roles}
    left = min(max(text_width(name) for name in names.values()) + 10, 0.34 * width if width < 600 else 190.0)
    size = max((width - left) / len(columns), 34.0)
    low, high = min(values.values()), max(values.values())
    total = left + size * len(columns)
    drawn = [
        words(left + size * (place + 0.5), 11, "none" if layer is None else str(layer), "middle", "quiet")
        for place, layer in enumerate(columns)
    ]
    drawn.append(words(0, 11, "layer", class_="quiet"))
    for row, role in enumerate(roles):
        y = 18 + 24 * row
        drawn.append(words(0, y + 15, shortened(names[role], left - 8)))
        for place, layer in enumerate(columns):
            if (value := values.get((role, layer))) is None:
                continue
            part = (value - low) / (high - low) if high > low else 0.5
            depth = 1 - part if dark_is_low else part
            box = (left + size * place + 1, y + 1, size - 2, 22.0)
            where = role if layer is None else f"{role}, layer {layer}"
            drawn.append(
                rectangle(*box, "cell", f"{where}: {value:.{digits}f}", fill_opacity=f"{0.08 + 0.82 * depth:.2f}")
            )
            drawn.append(words(box[0] + box[2] / 2, y + 16, f"{value:.{digits}f}", "middle"))
    return picture(total, 18 + 24 * len(roles), label, *drawn)


def histograms(found: Sequence[Histogram], width: float) -> Drawing:
    """Small ones, side by side: a bar for each level, or for `width` levels together."""
    columns = 4 if width > 600 else 2
    size = (width - 14 * (columns - 1)) / columns
    drawn = []
    for place, each in enumerate(found):
        x, y = (size + 14) * (place % columns), 122.0 * (place // columns)
        drawn.append(_histogram(each, x, y, size))
    rows = -(-len(found) // columns)
    return picture(width, 122.0 * rows - 8, f"Histograms of the levels of {len(found)} roles", *drawn)


def _histogram(each: Histogram, x: float, y: float, size: float) -> str:
    tallest = max(each.counts)
    base, room = y + 96, 62.0
    bar = size / len(each.counts)
    last = min(each.first + each.width * len(each.counts) - 1, each.highest)
    title = f"{each.role}: levels {each.lowest} to {each.highest}, {each.entropy_bits:.3f} bits of entropy"
    bars = [
        (
            x + bar * place,
            base - room * count / tallest,
            max(bar - (0.6 if bar > 3 else 0.0), 0.4),
            room * count / tallest,
        )
        for place, count in enumerate(each.counts)
    ]
    steps = "".join(f"M{a:.1f} {base:.1f}v{-h:.2f}h{w:.2f}v{h:.2f}z" for a, _, w, h in bars if h)
    name = shortened(each.role.replace("blocks.*.", ""), size, strong=True)
    drawn = [
        words(x, y + 11, name, class_="strong"),
        words(x, y + 25, f"entropy {each.entropy_bits:.2f} bits", class_="quiet"),
        node("path", node("title", escape(title)), d=steps, class_="bar"),
        line(x, base, x + size, base, "axis"),
        words(x, base + 12, str(each.first), class_="quiet"),
        words(x + size, base + 12, str(last), "end", "quiet"),
    ]
    if each.first < 0 < last:
        zero = x + bar * ((0 - each.first) // each.width + 0.5)
        drawn.append(words(zero, base + 12, "0", "middle", "quiet"))
    return "".join(drawn)


def loss_dumbbells(rows: Sequence[tuple[str, float | None, float | None]], width: float) -> Drawing:
    """rows: (tensor, predicted nats, measured nats), one below the other on a logarithmic axis.

    A measured loss that is not above zero cannot stand on it: it has a mark and its number beside the axis.
    """
    positive = [value for _, *pair in rows for value in pair if value is not None and value > 0]
    low, high = min(positive, default=1e-6), max(positive, default=1e-3)
    left = min(max(text_width(name) for name, *_ in rows) + 12, 0.42 * width)
    below = 64.0 if any(measured is not None and measured <= 0 for *_, measured in rows) else 0.0
    axis = Axis(low / 1.6, high * 1.6, left + below, width - 12, logarithmic=True)
    bottom = 22.0 * len(rows) + 6
    drawn = []
    for x, text in tick_labels(axis, 8 if width > 600 else 4):
        drawn += [line(x, 0, x, bottom, "grid"), words(x, bottom + 13, text, "middle", "quiet")]
    for place, (name, predicted, measured) in enumerate(rows):
        y = 22.0 * place + 13
        drawn.append(words(0, y + 4, shortened(name.removesuffix(".weight"), left - 10)))
        ends = [axis.at(value) for value in (predicted, measured) if value is not None and value > 0]
        if len(ends) == 2:
            drawn.append(line(ends[0], y, ends[1], y, "bond"))
        if predicted is not None and predicted > 0:
            title = node("title", escape(f"{name}, predicted: {predicted:.3e} nats"))
            drawn.append(node("circle", title, cx=axis.at(predicted), cy=y, r=4.5, class_="mark-predicted"))
        if measured is not None:
            x = axis.at(measured) if measured > 0 else left + 6
            title = node("title", escape(f"{name}, measured: {measured:.3e} nats"))
            shape = [(x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y), (x, y - 5.5)]
            steps = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in shape)
            drawn.append(node("path", title, d=steps, class_="mark-measured"))
            if measured <= 0:
                drawn.append(words(left + 15, y + 4, f"{measured:.0e}", class_="quiet"))
    drawn.append(words(width - 12, bottom + 28, "nats per token, logarithmic", "end", "quiet"))
    return picture(width, bottom + 34, f"Loss that rounding adds, of {len(rows)} tensors", *drawn)
