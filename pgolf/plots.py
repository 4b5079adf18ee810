"""The picture of `pgolf measure --plot`: where the bytes go, and how close each tensor is to its entropy."""

import io
import itertools
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.errors import EnvironmentLacks, UsageError
from codec.storage.atomic_files import check_writable, write_bytes

if TYPE_CHECKING:
    from codec.measurement.byte_ledger import TensorCost
    from codec.measurement.measurement import Measurement

BARS = 18  # roles drawn one by one: the full-size models have 15 to 20, two of them worth less than 0.1 %
PARTS = ("levels", "scales", "classes", "plain arrays", "tables", "header and lanes")
PART_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#9c6b4e", "#9498a0")  # told apart by colour-blind eyes
KIND_COLOURS = ("#3ca951", "#a463f2", "#e8589c", "#13829b", "#c46210", "#6e6e6e")  # none of the parts' colours


def check_plot(path: str | Path) -> None:
    """Fail before the measuring rather than after it.

    Raises: EnvironmentLacks without matplotlib, UsageError for a name that does not end in .png or cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise UsageError("the picture is a PNG", where=str(path), hint="let the name end in .png")
    check_writable(path)
    if not find_spec("matplotlib"):
        raise EnvironmentLacks("the matplotlib package is missing", hint="pip install 'parameter-golf-kit[report]'")


def draw_plot(measurements: "list[Measurement]", title: str, path: str | Path) -> None:
    """One row of two panels per recipe, as PNG; equal measurements give equal bytes.

    Raises: as `check_plot`.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    bars = max(len(shares(measurement)) for measurement in measurements)
    height = max(4.5, 1.7 + 0.27 * bars)  # inches; 0.27 keeps a line of 9-point text apart from the next
    figure = Figure(figsize=(13, 0.5 + height * len(measurements)), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=14, fontweight="bold", x=0.01, ha="left")
    axes = figure.subplots(len(measurements), 2, squeeze=False, gridspec_kw={"width_ratios": (1.35, 1)})
    for (left, right), measurement in zip(axes, measurements, strict=True):
        _draw_bytes(left, measurement)
        _draw_rates(right, measurement.ledger.rows)
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    write_bytes(path, image.getvalue())


def role(name: str) -> str:
    """`blocks.3.attn.c_q.weight` -> `blocks.*.attn.c_q`: one name for a tensor of all layers."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name).removesuffix(".weight")


def shares(measurement: "Measurement") -> list[tuple[str, tuple[float, ...]]]:
    """(role and number of its tensors, bytes of each of PARTS), largest first, the rest as one; their sum is the file.

    Tables, header and lanes belong to the file rather than to a tensor, so they are the last entry.
    """
    roles: dict[str, list[TensorCost]] = {}
    for row in measurement.ledger.rows:
        roles.setdefault(role(row.name), []).append(row)
    ordered = sorted(roles.items(), key=lambda item: (-sum(row.bytes for row in item[1]), item[0]))
    kept = ordered if len(ordered) <= BARS else ordered[: BARS - 1]
    found = [(name if len(rows) == 1 else f"{name} ({len(rows)})", _parts(rows)) for name, rows in kept]
    small = [row for _, rows in ordered[len(kept) :] for row in rows]
    if small:
        found.append((f"{len(small)} smaller tensors", _parts(small)))
    costs = measurement.ledger
    found.append(("tables and header", (0.0, 0.0, 0.0, 0.0, costs.table_bytes, costs.header_bytes + costs.lane_bytes)))
    return found


def _parts(rows: "list[TensorCost]") -> tuple[float, ...]:
    levels = sum(row.payload_bytes for row in rows if row.quantized)
    plain = sum(row.payload_bytes for row in rows if not row.quantized)
    scales = sum(row.scale_bytes + row.column_step_bytes for row in rows)
    return levels, scales, sum(row.class_bytes for row in rows), plain, 0.0, 0.0


def _draw_bytes(axes: Any, measurement: "Measurement") -> None:
    entries = shares(measurement)
    total = measurement.ledger.artifact_bytes
    places = range(len(entries))
    starts = [0.0] * len(entries)
    for number, (part, colour) in enumerate(zip(PARTS, PART_COLOURS, strict=True)):
        sizes = [parts[number] for _, parts in entries]
        if sum(sizes):
            label, edge = f"{part}  {sum(sizes):,.0f} B", {"edgecolor": "white", "linewidth": 0.4}
            axes.barh(places, sizes, left=starts, color=colour, label=label, height=0.72, **edge)
        starts = [start + size for start, size in zip(starts, sizes, strict=True)]
    longest = max(starts)
    for place, end in zip(places, starts, strict=True):
        axes.text(end + 0.008 * longest, place, f"{100 * end / total:.1f} %", va="center", fontsize=8, color="#444")
    axes.set_yticks(places, [name if len(name) <= 40 else f"…{name[-39:]}" for name, _ in entries], fontsize=9)
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * longest)
    axes.xaxis.set_major_formatter(lambda size, _: f"{size / 1e6:g} MB" if longest >= 9e5 else f"{size / 1e3:g} kB")
    axes.set_title(
        f"{measurement.recipe}: {total:,} bytes, {measurement.ledger.bits_per_weight:.3f} bits per weight",
        loc="left",
        fontsize=11,
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.06), ncols=3, fontsize=9, frameon=False)
    _plain_frame(axes, "x")


def _draw_rates(axes: Any, rows: "tuple[TensorCost, ...]") -> None:
    """Levels and classes as coded over the order-0 entropy of the levels; area grows with the tensor."""
    coded = [row for row in rows if row.entropy_bits and row.weights]  # a copy has none
    kinds = sorted({row.stored_as for row in coded})
    largest = max((row.weights for row in coded), default=1)
    for kind, colour in zip(kinds, itertools.cycle(KIND_COLOURS), strict=False):
        chosen = [row for row in coded if row.stored_as == kind]
        axes.scatter(
            [row.entropy_bits / row.weights for row in chosen],
            [8 * (row.payload_bytes + row.class_bytes) / row.weights for row in chosen],
            s=[14 + 180 * row.weights / largest for row in chosen],
            color=colour,
            alpha=0.65,
            linewidths=0.6,
            edgecolors="white",
            label=f"{kind} ({len(chosen)})",
        )
    if coded:
        low, high = axes.get_xlim()
        axes.axline(
            (low, low), slope=1, color="#666", linewidth=0.9, linestyle="--", zorder=0, label="as coded = entropy"
        )
        axes.set_xlim(low, high)
        legend = axes.legend(loc="best", fontsize=9, framealpha=0.8, edgecolor="none")
        for handle in legend.legend_handles[: len(kinds)]:
            handle.set_sizes([50])
    axes.set_xlabel("order-0 entropy of the levels, bits per weight", fontsize=9)
    axes.set_ylabel("levels as coded, bits per weight", fontsize=9)
    axes.set_title("each quantized tensor, area by its weights", loc="left", fontsize=11)
    _plain_frame(axes, "both")


def _plain_frame(axes: Any, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(axis=grid, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
