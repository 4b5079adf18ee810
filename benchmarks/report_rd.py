"""Tables and pictures of what bench_rd.py measured.

python -m benchmarks.report_rd benchmarks/results/bench_rd.json --images docs/images
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from codec.errors import UsageError
from codec.storage.atomic_files import write_bytes
from codec.storage.json_file import read_json_object

Row = Mapping[str, Any]
COLOURS = {
    "best": "#d6336c",
    "watersic": "#4269d0",
    "pr1716": "#3ca951",
    "pr1716, our rANS": "#97c459",
    "pr339-int5mlp": "#efb118",
    "pr162": "#9c6b4e",
    "nncodec": "#6e6e6e",
}
ENDURED = 0.1  # nats: above, a prediction to second order is none
RATES = {
    "cpu-bench": (2.0, 2.5, 3.3, 4.2),
    "baseline 2.02": (1.2, 2.4),
    "Parcae": (2.0, 2.5, 3.3, 4.2),
    "MiniLM": (3.3,),
}


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--images", type=click.Path(path_type=Path), help="Folder for rd_*.png; needs matplotlib.")
def report(results: Path, images: Path | None) -> None:
    """Markdown on stdout."""
    rows: list[Row] = read_json_object(results)["results"]
    subjects = sorted({row["subject"] for row in rows if row["kind"] == "point"}, key=_order)
    for subject in subjects:
        _at_rates(rows, subject)
        _files(rows, subject)
        _seeds(rows, subject)
    _violations(rows, subjects)
    _compared(rows, "ablation")
    _compared(rows, "paid")
    _bounds(rows)
    _predictions(rows, subjects)
    _speed(rows)
    if images:
        write_bytes(images / "rd_curves.png", curves(rows, subjects, "part"))
        write_bytes(images / "rd_files.png", curves(rows, subjects, "file"))
        write_bytes(images / "rd_prediction.png", prediction(rows))


def points(rows: Iterable[Row], subject: str, scope: str, scheme: str, seed: int = 0) -> list[Row]:
    """By bits."""
    asked = {"kind": "point", "subject": subject, "scope": scope, "scheme": scheme, "seed": seed}
    found = [row for row in rows if all(row.get(key) == value for key, value in asked.items())]
    return sorted(found, key=lambda row: row["bits"])


def at(found: Sequence[Row], x: float, key: str, axis: str = "bits") -> float | None:
    """Between two points, along the logarithm of the figure; None outside of them or where it is not positive."""
    known = sorted((row[axis], row[key]) for row in found if row[key] > 0)
    if len(known) < 2 or not known[0][0] <= x <= known[-1][0]:
        return None
    return float(np.exp(np.interp(x, [each for each, _ in known], np.log([each for _, each in known]))))


def size_at(found: Sequence[Row], figure: float, key: str) -> float | None:
    """Bytes at which the curve comes down to the figure."""
    known = sorted((math.log(row[key]), row["bytes"]) for row in found if row[key] > 0)
    if len(known) < 2 or figure <= 0 or not known[0][0] <= math.log(figure) <= known[-1][0]:
        return None
    return float(np.interp(math.log(figure), [each for each, _ in known], [each for _, each in known]))


def violations(rows: Sequence[Row], subjects: Iterable[str]) -> list[str]:
    """Points of others that lie on or below the curve of `best`, and points that its curve does not reach."""
    found = []
    for subject in subjects:
        for scope in ("part", "file"):
            own = points(rows, subject, scope, "best")
            for scheme in schemes_of(rows, subject, scope):
                for row in points(rows, subject, scope, scheme) if scheme != "best" else ():
                    for key in ("kl", "bpb") if "kl" in row else ("noise",):
                        ours = at(own, row["bits"], key)
                        place = f"{subject}, {scope}, {scheme} at {row['bits']:.3f} bits, {key} {row[key]:.5g}"
                        if ours is not None and ours >= row[key]:
                            found.append(f"{place}: best has {ours:.5g}")
                        elif ours is None and own and row[key] <= own[-1][key] and row["bits"] <= own[-1]["bits"]:
                            found.append(f"{place}: below all of best")
    return found


def schemes_of(rows: Iterable[Row], subject: str, scope: str) -> list[str]:
    found = {
        row["scheme"] for row in rows if (row["kind"], row["subject"], row.get("scope")) == ("point", subject, scope)
    }
    return [name for name in COLOURS if name in found]


def line(rows: Iterable[Row], key: str) -> tuple[float, float, int]:
    """(slope, relative deviation, points) of measured over predicted, a line through the origin in relative errors."""
    ratios = np.array([row[key] / row["predicted"] for row in _predicted(rows) if row[key] > 0])
    logs = np.log(ratios)
    return float(np.exp(logs.mean())), float(logs.std()), len(ratios)


def _predicted(rows: Iterable[Row]) -> list[Row]:
    """Of language models, where the second order can be believed."""
    kinds = ("point",)  # an ablation may leave out what makes predictions hold
    return [row for row in rows if row["kind"] in kinds and "kl" in row and 0 < row["predicted"] < ENDURED]


def _order(subject: str) -> int:
    return [*RATES].index(subject) if subject in RATES else len(RATES)


def _table(title: str, headers: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    body = list(lines)
    if body:
        click.echo(f"\n## {title}\n")
        click.echo("| " + " | ".join(headers) + " |\n|---" + "|--:" * (len(headers) - 1) + "|")
        for each in body:
            click.echo("| " + " | ".join(each) + " |")


def _said(value: float | None, form: str = ".4g") -> str:
    return "" if value is None else format(value, form)


def _at_rates(rows: Sequence[Row], subject: str) -> None:
    schemes = schemes_of(rows, subject, "part")
    key = "noise" if subject == "MiniLM" else "kl"
    rates = RATES.get(subject, (2.5, 3.3))
    lines = []
    for scheme in schemes:
        found = points(rows, subject, "part", scheme)
        values = [at(found, rate, key) for rate in rates]
        if key == "noise":
            values = [None if each is None else 10 * math.log10(each) for each in values]
        figure = "decibels" if key == "noise" else key
        measured = "; ".join(f"{row['bits']:.3f}: {row[figure]:.4g}" for row in found)
        lines.append((scheme, measured, *(_said(each) for each in values)))
    what = "output error, dB" if key == "noise" else "KL, nats"
    _table(f"{subject}: {what} at bits per quantized weight", ("scheme", "bits: measured", *map(str, rates)), lines)


def _files(rows: Sequence[Row], subject: str) -> None:
    own = points(rows, subject, "file", "best")
    lines: list[Sequence[str]] = []
    for scheme in schemes_of(rows, subject, "file"):
        for row in points(rows, subject, "file", scheme):
            if row["aim"] and scheme != "best":
                continue
            same_bytes, fewer = at(own, row["bytes"], "bpb", "bytes"), size_at(own, row["bpb"], "bpb")
            lines.append(
                (
                    scheme,
                    f"{row['bytes']:,}",
                    f"{row['bpb']:.5f}",
                    f"{row['kl']:.5f}",
                    "" if scheme == "best" or same_bytes is None else f"{same_bytes:.5f}",
                    "" if scheme == "best" or same_bytes is None else f"{100 * same_bytes / row['bpb']:.1f} %",
                    "" if scheme == "best" or fewer is None else f"{fewer:,.0f}",
                    "" if scheme == "best" or fewer is None else f"{100 * (1 - fewer / row['bytes']):.1f} %",
                )
            )
    headers = ("scheme", "bytes", "bpb", "KL", "best's bpb there", "of it", "best's bytes at its bpb", "fewer")
    _table(f"{subject}: whole files, the recipes as they are", headers, lines)


def _seeds(rows: Sequence[Row], subject: str) -> None:
    seeds = sorted({row["seed"] for row in rows if row["kind"] == "point" and row["subject"] == subject})
    rates = RATES.get(subject, ())
    lines: list[Sequence[str]] = []
    if len(seeds) > 1:
        by_seed = [[at(points(rows, subject, "part", "best", seed), rate, "kl") for rate in rates] for seed in seeds]
        lines = [(f"seed {seed}", *map(_said, found)) for seed, found in zip(seeds, by_seed, strict=True)]
        for column in zip(*by_seed, strict=True):
            known = [each for each in column if each]
            if known:
                spread = (max(known) - min(known)) / float(np.mean(known))
                lines.append((f"spread of {len(known)}: {100 * spread:.1f} % of the mean", *[""] * len(rates)))
    _table(f"{subject}: KL of `best` by the seed of its calibration", ("seed", *map(str, rates)), lines)


def _violations(rows: Sequence[Row], subjects: Sequence[str]) -> None:
    found = violations(rows, subjects)
    click.echo(f"\n## Points of others at or below the curve of `best`: {len(found)}\n")
    for each in found:
        click.echo(f"- {each}")


def _compared(rows: Sequence[Row], kind: str) -> None:
    groups = sorted({(row["subject"], row["aim"]) for row in rows if row["kind"] == kind}, key=str)
    for subject, aim in groups:
        chosen = [row for row in rows if (row["kind"], row.get("subject"), row.get("aim")) == (kind, subject, aim)]
        chosen.sort(key=lambda row: row["scheme"])
        first = chosen[0]
        lines = []
        for row in chosen:
            off = row["bits"] - aim  # a bit is 6.02 dB, and a factor of 4 in what follows the error's square
            noise = 10 * math.log10(row["predicted"]) + 6.02 * off
            start = 10 * math.log10(first["predicted"]) + 6.02 * (first["bits"] - aim)
            lines.append(
                (
                    row["scheme"],
                    f"{row['bits']:.3f}",
                    f"{row['kl']:.5f}",
                    f"{row['kl'] * 4**off:.5f}",
                    f"{row['bpb'] * 4**off:.5f}",
                    f"{start - noise:+.2f}",
                    f"{(start - noise) / 6.02:+.3f}",
                    f"{row['noise_db'] + 6.02 * off:.2f}",
                )
            )
        headers = ("variant", "bits", "KL", "KL at the aim", "bpb at the aim", "gain, dB", "gain, bits", "H noise, dB")
        _table(f"{subject}, {kind} at {aim} bits per weight; gains over the first row", headers, lines)


def _bounds(rows: Sequence[Row]) -> None:
    found = [row for row in rows if row["kind"] == "bound"]
    lines = [
        (
            row["subject"],
            str(row["states"]),
            f"{row['restart']:,}",
            f"{row['bits']:.3f}",
            f"{row['tensors']} ({row['left_out']})",
            f"{row['median_db']:.2f}",
            f"{row['best_db']:.2f} to {row['worst_db']:.2f}",
            f"{row['median_with_tables_db']:.2f}",
            f"{row['seconds']:.0f}",
        )
        for row in sorted(
            found, key=lambda row: (row["subject"], str(row.get("aim")), row["restart"] != 1024, row["states"])
        )
    ]
    headers = (
        "model",
        "states",
        "restart",
        "bits",
        "tensors (left out)",
        "median dB",
        "range",
        "with tables",
        "seconds",
    )
    _table("Distance to the Gaussian bound", headers, lines)


def _predictions(rows: Sequence[Row], subjects: Iterable[str]) -> None:
    lines = []
    known = _predicted(rows)
    chosen = {each: [row for row in known if row["subject"] == each] for each in subjects}
    chosen["all"] = known
    chosen["all, best alone"] = [row for row in known if row["scheme"].startswith("best")]
    for name, own in chosen.items():
        for key in ("kl", "loss"):
            if own:
                slope, scatter, count = line(own, key)
                lines.append((name, key, str(count), f"{slope:.3f}", f"{100 * scatter:.0f} %"))
    _table("Measured over predicted, below 0.1 nats", ("model", "figure", "points", "slope", "scatter"), lines)


def _speed(rows: Sequence[Row]) -> None:
    lines = [
        (
            row["subject"],
            f"{row['weights']:,}",
            f"{row['bytes']:,}",
            str(row["threads"]),
            *(f"{row[f'{each}_seconds']:.1f}" for each in ("quantize", "encode", "decode")),
            f"{row['memory_peak'] / 1e9:.2f} GB",
        )
        for row in rows
        if row["kind"] == "speed"
    ]
    headers = ("weights of", "weights", "bytes", "threads", "quantize s", "encode s", "decode s", "peak memory")
    _table("Speed", headers, lines)


def curves(rows: Sequence[Row], subjects: Sequence[str], scope: str) -> bytes:
    """PNG, a panel for each model: KL (or output error) by bits per weight, or bpb by bytes of the file."""
    from matplotlib.figure import Figure

    shown = [each for each in subjects if schemes_of(rows, each, scope)]
    if not shown:
        raise UsageError(f"no curves of scope {scope} to draw")
    figure = Figure(figsize=(6.2 * min(len(shown), 2), 4.8 * -(-len(shown) // 2)), dpi=110, layout="constrained")
    axes = figure.subplots(-(-len(shown) // 2), min(len(shown), 2), squeeze=False).ravel()
    for panel, subject in zip(axes, shown, strict=False):
        encoder = subject == "MiniLM"
        key = "decibels" if encoder else "kl" if scope == "part" else "bpb"
        axis = "bits" if scope == "part" else "bytes"
        for scheme in schemes_of(rows, subject, scope):
            found = [row for row in points(rows, subject, scope, scheme) if encoder or row[key] > 0]
            style = {"color": COLOURS[scheme], "linewidth": 2.2 if scheme == "best" else 1.3, "markersize": 4.5}
            x = [row[axis] / (1 if axis == "bits" else 1e6) for row in found]
            panel.plot(x, [row[key] for row in found], marker="o", label=scheme, **style)
        if not encoder:
            panel.set_yscale("log")
        names = {"kl": "KL to the float model, nats per target", "bpb": "penalty, bits per byte"}
        panel.set_ylabel(names.get(key, "output error, dB"))
        panel.set_xlabel("bits per quantized weight, all side information counted" if axis == "bits" else "file, MB")
        panel.set_title(subject, loc="left", fontweight="bold")
        panel.grid(which="both", color="#e4e4e4", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=9, frameon=False)
    for panel in axes[len(shown) :]:
        panel.set_visible(False)
    return _png(figure)


def prediction(rows: Sequence[Row]) -> bytes:
    """PNG: measured by predicted, every point of every language model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=110, layout="constrained")
    known = [row for row in rows if row["kind"] in ("point", "ablation", "paid") and row.get("predicted", 0) > 0]
    for panel, key in zip(figure.subplots(1, 2), ("kl", "loss"), strict=True):
        for number, subject in enumerate(sorted({row["subject"] for row in known if "kl" in row}, key=_order)):
            for best in (False, True):
                own = [row for row in known if row["subject"] == subject and row["scheme"].startswith("best") == best]
                own = [row for row in own if row.get(key, 0) > 0]
                panel.scatter(
                    [row["predicted"] for row in own],
                    [row[key] for row in own],
                    s=22,
                    color=("#4269d0", "#3ca951", "#efb118", "#a463f2")[number % 4],
                    facecolors=None if best else "none",
                    alpha=0.8,
                    label=f"{subject}, {'best and its variants' if best else 'others'}",
                )
        slope, scatter, _ = line(rows, key)
        x = np.array([1e-5, ENDURED])
        panel.plot(x, slope * x, color="#444", linewidth=1.2, label=f"{slope:.2f} x, scatter {100 * scatter:.0f} %")
        panel.set(xscale="log", yscale="log", xlabel="predicted, nats per target")
        panel.set_ylabel("KL to the float model" if key == "kl" else "change of loss, nats per target")
        panel.grid(color="#e4e4e4", linewidth=0.6)
        panel.legend(fontsize=8, frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Any) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


if __name__ == "__main__":
    report()
