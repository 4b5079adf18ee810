"""`pgolf report`: what the page holds, that its pictures and tables agree, and what it refuses."""

import json
import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.encoder import encode
from codec.quantization.recipe import quantize_checkpoint
from codec.quantization.recipe_files import load_recipe
from codec.storage.checkpoint import write_checkpoint
from codec.storage.token_shards import shard_bytes
from pgolf.__main__ import main
from pgolf.report.artifacts import artifact_facts
from pgolf.report.runs import upper_bound
from pgolf.report.svg import decades, round_values
from pgolf.report.texts import text_facts
from pgolf.report.treemap import Box, sliced, squarified
from tests.packager.conftest import checkpoint, data  # noqa: F401
from tests.verify.records import log_1716, write_1176, write_1716
from verify.claims.significance import SeedScores, compare
from verify.scoring.heldout import HeldOut
from verify.scoring.score import Score

VOID = {"meta", "link", "br"}
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?")


class Reader(HTMLParser):
    """Elements as (tag, attributes) in order, text by figure; fails on what is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.figures = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "figure":
            self.figures.append({"titles": [], "cells": [], "heading": "", "tables": 0, "pictures": 0})
        if tag in ("table", "svg") and "figure" in self.open:
            self.figures[-1]["tables" if tag == "table" else "pictures"] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "figure" not in self.open:
            return
        kind = {"title": "titles", "td": "cells", "th": "cells"}.get(self.open[-1])
        if kind:
            self.figures[-1][kind].append(text)
        elif self.open[-1] == "h3":
            self.figures[-1]["heading"] += text


@pytest.fixture(scope="module")
def made(checkpoint, data, tmp_path_factory):  # noqa: F811
    """Folder with a submission, its checkpoint and calibration, and the page and facts of all that without a score."""
    folder = tmp_path_factory.mktemp("made")
    (data / "tiny_train_000000.bin").write_bytes(shard_bytes(np.arange(3000) % 300))
    assert main(["calibrate", str(checkpoint), "--data", str(data), "-o", str(folder / "cal.safetensors")]) == 0
    assert main(["pack", str(checkpoint), "--recipe", "pr162-small", "-o", str(folder / "packed")]) == 0
    return folder


@pytest.fixture(scope="module")
def page(made, checkpoint):  # noqa: F811
    output = made / "page.html"
    options = ["--checkpoint", str(checkpoint), "--hessians", str(made / "cal.safetensors"), "-o", str(output)]
    assert main(["report", str(made / "packed"), *options]) == 0
    return output.read_text()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two records of the challenge beside each other, against a third."""
    folder = tmp_path_factory.mktemp("records")
    write_1716(folder / "1716")
    write_1176(folder / "1176")
    output = folder / "page.html"
    paths = [str(folder / "1716"), str(folder / "1176")]
    assert main(["report", *paths, "--against", "1493", "-o", str(output)]) == 0
    return output.read_text()


@pytest.fixture(params=["page", "records"])
def either(request):
    return request.getfixturevalue(request.param)


def test_it_asks_for_nothing_from_elsewhere(either):
    reader = Reader(either)
    links = [value for _, found in reader.elements for name, value in found.items() if name in ("href", "src")]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert not re.search(r"url\(|@import|https?://|<base|<iframe|<object", either)
    assert len(either.encode()) < 1_000_000
    names = {found["id"] for _, found in reader.elements if "id" in found}
    assert {link[1:] for link in links if link.startswith("#")} <= names
    assert len(names) == sum("id" in found for _, found in reader.elements)


def test_its_pictures_are_well_formed_and_named(either):
    pictures = re.findall(r"<svg.*?</svg>", either, re.DOTALL)
    assert len(pictures) > 4
    for text in pictures:
        picture = ElementTree.fromstring(text)
        assert picture.get("aria-hidden") == "true" or len(picture.get("aria-label")) > 5
        for each in picture.iter():
            assert not any(value in ("nan", "inf", "-inf") for value in each.attrib.values())
            assert all(float(each.get(name, 0)) >= 0 for name in ("width", "height", "r"))


def test_every_figure_has_a_table_with_its_numbers(either):
    """But for sums of a role, and the outlines of histograms, whose numbers are counts."""
    figures = Reader(either).figures
    assert len(figures) >= 4
    compared = 0
    for figure in figures:
        assert figure["tables"] == 1
        assert figure["pictures"] >= 2  # for wide windows and for narrow ones
        numbers = {number for cell in figure["cells"] for number in NUMBER.findall(cell)}
        for title in figure["titles"]:
            summed = figure["heading"] == "Where the bytes are" and title.partition(": ")[0] not in figure["cells"]
            if figure["heading"] != "Levels" and not summed:
                assert set(NUMBER.findall(title)) <= numbers, title
                compared += 1
    assert compared > 40


def test_a_submission_alone(made, capsys):
    """Bytes of all parts are the file; what is not known is named, with the option that gives it."""
    output = made / "bare.html"
    assert main(["report", str(made / "packed"), "-o", str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (subject,) = found["subjects"]
    artifact = subject["artifact"]
    parts = ("level_bytes", "plain_bytes", "scale_bytes", "class_bytes")
    rows = math.fsum(row[part] for row in artifact["tensors"] for part in parts)
    rest = artifact["table_bytes"] + artifact["header_bytes"] + artifact["lane_bytes"]
    assert rows + rest == pytest.approx(artifact["bytes"], abs=1e-6)
    assert artifact["bytes"] == (made / "packed" / "model.bin").stat().st_size
    assert subject["code"]["bytes"] == (made / "packed" / "train_gpt.py").stat().st_size
    assert subject["total_bytes"] == artifact["bytes"] + subject["code"]["bytes"]
    levels = sum(row["weights"] for row in artifact["tensors"] if row["quantized"])
    assert sum(sum(each["counts"]) + each["below"] + each["above"] for each in artifact["histograms"]) == levels
    assert found["bytes"] == output.stat().st_size
    bare = output.read_text()
    for option in ("--checkpoint FILE", "--hessians FILE", "--data DIR", "--measure-loss N"):
        assert f"<code>{option}</code>" in bare
        assert any(f"`{option}`" in missing["how"] for missing in subject["missing"])
    assert "Signal to noise, by layer" not in bare


def test_the_numbers_are_those_of_measure(made, page, checkpoint, capsys):  # noqa: F811
    options = ["--recipe", "pr162-small", "--hessians", str(made / "cal.safetensors"), "--json"]
    assert main(["measure", str(checkpoint), *options]) == 0
    measured = json.loads(capsys.readouterr().out)
    cells = {cell for figure in Reader(page).figures for cell in figure["cells"]}
    known = [row for row in measured["tensors"] if row["snr_db"] is not None]
    assert len(known) > 5
    for row in known:
        assert f"{row['snr_db']:.1f}" in cells
        assert f"{row['bits_per_weight']:.2f}" in cells
    assert "--checkpoint FILE" not in page
    assert "None was measured." in page


def test_equal_inputs_give_an_equal_page(made, page, checkpoint):  # noqa: F811
    output = made / "second.html"
    options = ["--checkpoint", str(checkpoint), "--hessians", str(made / "cal.safetensors"), "-o", str(output)]
    assert main(["report", str(made / "packed"), *options]) == 0
    assert output.read_text() == page


def test_names_of_others_are_text(tmp_path, capsys):
    hostile = {"<script>alert(1)</script>": (40, 60), "\"&'><img src=x onerror=alert(1)>.3.weight": (50, 60)}
    random = np.random.default_rng(0)
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in hostile.items()}
    write_checkpoint(tmp_path / "model.safetensors", tensors, {})
    (tmp_path / "<b>seed1.log").write_text(log_1716(42))
    paths = [str(tmp_path / "model.safetensors"), str(tmp_path / "<b>seed1.log")]
    assert main(["report", *paths, "-o", str(tmp_path / "x.html")]) == 0
    text = (tmp_path / "x.html").read_text()
    assert text.count("<script") == 1
    assert "<img" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    elements = {tag for tag, _ in Reader(text).elements}
    assert "img" not in elements


def test_a_checkpoint_is_shown_as_a_recipe_would_pack_it(checkpoint, tmp_path, capsys):  # noqa: F811
    output = tmp_path / "x.html"
    assert main(["report", str(checkpoint), "--recipe", "pr162-small", "-o", str(output), "--json"]) == 0
    (subject,) = json.loads(capsys.readouterr().out)["subjects"]
    assert main(["measure", str(checkpoint), "--recipe", "pr162-small", "--json"]) == 0
    (measured,) = json.loads(capsys.readouterr().out)["recipes"]
    assert subject["artifact"]["bytes"] == measured["bytes"]
    assert subject["artifact"]["snr_db"] == pytest.approx(measured["snr_db"])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["packed", "-o", "x.txt"], 2, "x.txt: the report is a page; let the name end in .html"),
        (["missing"], 3, "missing: no such file; check the path"),
        (["packed", "packed/model.bin", "--checkpoint", "x"], 2, "--checkpoint belongs to one artifact or submission"),
        (["packed", "--recipe", "pr162"], 2, "--recipe is for a checkpoint"),
        (["packed", "--hessians", "cal.safetensors"], 2, "--hessians without --checkpoint"),
        (["packed", "--measure-loss", "3"], 2, "--measure-loss without --data"),
        (
            ["packed", "--checkpoint", "cal.safetensors"],
            3,
            "cal.safetensors: is not what this artifact was packed from",
        ),
        (["packed", "--against", "x"], 2, "--against `x` is neither a mean in bits per byte"),
        (["."], 3, ".: holds no score"),
    ],
)
def test_what_it_refuses(made, capsys, monkeypatch, arguments, code, sentence):
    monkeypatch.chdir(made)
    before = sorted(made.rglob("*"))
    output = [] if "-o" in arguments else ["-o", "out.html"]
    assert main(["report", *arguments, *output]) == code
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
    assert sorted(made.rglob("*")) == before


def test_ctrl_c_leaves_the_earlier_page(made, monkeypatch, capsys):
    output = made / "kept.html"
    output.write_text("earlier")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pgolf.report.page.report_page", interrupted)
    before = sorted(made.rglob("*"))
    assert main(["report", str(made / "packed"), "-o", str(output)]) == 130
    assert output.read_text() == "earlier"
    assert sorted(made.rglob("*")) == before


def test_runs_of_records_side_by_side(records):
    reader = Reader(records)
    headings = [figure["heading"] for figure in reader.figures]
    assert headings == ["Against the cap", "Seeds", "Validation on the way", "Seconds"]
    cells = {figure["heading"]: figure["cells"] for figure in reader.figures}
    assert "15,996,103" in cells["Against the cap"]
    assert "1.078817" in cells["Seeds"]
    assert "0.0478" in cells["Seeds"]  # p of the t test with the shift, as `pgolf compare` has it
    assert "not significant" in cells["Seeds"]


def test_curves_are_those_of_the_log(tmp_path, capsys):
    log = tmp_path / "train.log"
    steps = [f"step:{step}/900 train_loss:{5 - step / 300:.4f} train_time:{step * 50}ms" for step in range(1, 901)]
    ends = ["step:900/900 val_loss:2.0 val_bpb:1.20000000 train_time:45000ms", "phase_times train:45000ms val:2000ms"]
    log.write_text("\n".join([*steps, *ends, "final_int8_zlib_roundtrip_exact val_loss:2.1 val_bpb:1.25000000"]) + "\n")
    assert main(["report", str(log), "-o", str(tmp_path / "x.html"), "--json"]) == 0
    (subject,) = json.loads(capsys.readouterr().out)["subjects"]
    (run,) = subject["seeds"]["runs"]
    assert len(run["training"]) == 120
    assert run["training"][0] == {"step": 1, "seconds": 0.05, "value": 4.9967}
    assert run["training"][-1] == {"step": 900, "seconds": 45.0, "value": 2.0}
    assert [(phase["name"], phase["seconds"]) for phase in run["phases"]] == [("train", 45.0), ("val", 2.0)]
    assert run["bpb"] == 1.25


@given(st.lists(st.floats(1.0, 1.2), min_size=2, max_size=6, unique=True), st.floats(1.0, 1.2))
def test_the_band_ends_left_of_the_line_where_the_t_test_is_significant(values, against):
    sample = SeedScores(values=tuple(values))
    bound, test = upper_bound(sample), compare(sample, SeedScores(values=(against,)), 0.38).test("t", shifted=True)
    if bound is None or test is None:
        return
    threshold = against - 0.005 * 0.38
    assert abs(bound - threshold) < 1e-9 or (bound < threshold) == test.significant


def test_nats_along_the_text_add_up(data):  # noqa: F811
    heldout = HeldOut.read([data / "tiny_val_000000.bin"], data / "tiny.model")
    random = np.random.default_rng(3)
    nats = random.uniform(0.1, 4, heldout.targets)
    total, size = float(nats.sum()), int(heldout.token_bytes.sum())
    score = Score(scorer="sliding", nats=total, tokens=heldout.targets, bytes=size, windows=1, seconds=1.0)
    facts = text_facts(nats, heldout, score)
    assert len(facts.bins) == 200
    assert math.fsum(each.nats for each in facts.bins) == pytest.approx(total)
    assert sum(each.bytes for each in facts.bins) == size
    assert sum(each.targets for each in facts.bins) == heldout.targets
    assert facts.bpb == pytest.approx(score.bpb)
    assert facts.documents == 15
    worst = [each.bpb for each in facts.worst_snippets]
    assert worst == sorted(worst, reverse=True)
    first = facts.worst_documents[0]
    part = slice(first.first, first.first + first.targets)
    assert first.bpb == pytest.approx(nats[part].sum() / math.log(2) / heldout.token_bytes[part].sum())
    assert first.text.startswith("The quick brown fox")


def test_a_copy_and_a_constant_have_no_distortion():
    """No picture divides by the error of a tensor that has none."""
    tensors = {"a.0.weight": np.ones((64, 64), np.float32), "b": np.zeros(5, np.float32)}
    blob = encode(quantize_checkpoint(tensors, load_recipe("pr162-small")), {})
    facts = artifact_facts("x", blob, lambda note: None, tensors)
    assert all(row.snr_db is None for row in facts.tensors if row.name == "b")


sizes = st.lists(st.floats(0.01, 1000), min_size=1, max_size=40).map(lambda found: sorted(found, reverse=True))


@given(sizes, st.floats(10, 900), st.floats(10, 900), st.sampled_from([squarified, sliced]))
def test_a_treemap_fills_its_box_and_nothing_overlaps(sizes, width, height, layout):
    boxes = layout(sizes, Box(3.0, 5.0, width, height))
    scale = width * height / sum(sizes)
    for size, box in zip(sizes, boxes, strict=True):
        assert box.width * box.height == pytest.approx(size * scale, rel=1e-6, abs=1e-6)
        assert 3 - 1e-6 <= box.x <= box.x + box.width <= 3 + width + 1e-6
        assert 5 - 1e-6 <= box.y <= box.y + box.height <= 5 + height + 1e-6
    for one, two in combinations(boxes, 2):
        across = min(one.x + one.width, two.x + two.width) - max(one.x, two.x)
        down = min(one.y + one.height, two.y + two.height) - max(one.y, two.y)
        assert across < 1e-6 or down < 1e-6


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_inside_and_not_too_many(low, width, most):
    high = low + width
    ticks = round_values(low, high, most)
    assert 0 < len(ticks) <= most
    assert all(low - 1e-6 * width <= tick <= high + 1e-6 * width for tick in ticks)


@given(st.floats(1e-9, 1e3), st.floats(1.5, 1e9), st.integers(3, 8))
def test_logarithmic_ticks_are_inside_and_not_too_many(low, ratio, most):
    ticks = decades(low, low * ratio, most)
    assert len(ticks) <= most
    assert all(low <= tick <= low * ratio for tick in ticks)


# Machado, Oliveira and Fernandes 2009, severity 1: what linear RGB looks like without M cones, and without L cones.
BLIND = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "none": np.eye(3),
}


@pytest.mark.parametrize("eye", BLIND)
@pytest.mark.parametrize("names", [("levels", "scales", "classes", "plain", "tables", "code"), ("l0", "l1", "l2")])
def test_colours_of_a_legend_are_told_apart_by_every_eye(eye, names):
    """At least 12 of CIE76 apart, light and dark: 2.3 is a just noticeable difference."""
    style = files("pgolf.report").joinpath("page.css").read_text()
    for number in range(2):
        found = [re.findall(rf"--{name}: #(\w{{6}})", style)[number] for name in names]
        seen = [_lab(BLIND[eye] @ _linear(colour)) for colour in found]
        assert min(np.linalg.norm(one - two) for one, two in combinations(seen, 2)) > 12


def _linear(colour):
    values = np.array([int(colour[place : place + 2], 16) for place in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _lab(rgb):
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
