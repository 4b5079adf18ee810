"""docs/format.md is enough: a reader written from it agrees with the library."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings

from codec import QuantizedTensor, decode, encode, unpack
from codec.decoder import Stream, Trellis, open_artifact, read_tensors
from tests.codec.reader import PAGE, ROW_SCHEDULE, SCHEDULE, read, values
from tests.golden.regenerate import FOLDER, GOLDEN
from tests.strategies import lattices, patterned_tensors, state_dicts


@given(state_dicts)
@settings(max_examples=60)
def test_the_independent_reader_agrees(tensors):
    meta, back = read(encode(tensors, {"a": 1}))
    assert meta == {"a": 1}
    assert list(back) == sorted(tensors)
    for name, tensor in tensors.items():
        if isinstance(tensor, QuantizedTensor):
            kind, shape, scales, levels, steps, *more = back[name]
            per_row = "row" if tensor.scales.dtype == np.float16 else "all"
            assert kind.strip("*=") == ("trellis" if tensor.trellis else per_row)
            assert scales == tensor.scales.tobytes()
            assert levels == tensor.levels.ravel().tolist()
            assert steps == (None if tensor.column_steps is None else tensor.column_steps.tolist())
            if tensor.trellis:
                assert more == [tensor.row_steps.tolist(), tensor.trellis]
                expected = np.array(values(back[name]), np.float32).reshape(tensor.levels.shape)
                assert np.array_equal(tensor.dequantize(), expected, equal_nan=True)
        else:
            dtype, shape, content = back[name]
            assert (np.dtype(dtype), content) == (tensor.dtype, tensor.tobytes())
        assert tuple(shape) == (tensor.levels if isinstance(tensor, QuantizedTensor) else tensor).shape


def test_the_independent_reader_agrees_on_classes_of_rows_and_columns():
    random = np.random.default_rng(0)
    spread = np.exp(random.normal(0, 1, (200, 1)) + random.normal(0, 1, 300))
    levels = (random.normal(size=(200, 300)) * spread).round().clip(-7, 7).astype(np.int8)
    blob = encode({"w": QuantizedTensor(levels, np.ones(200, np.float16))}, {})
    form = read(blob)[1]["w"]
    assert form[3] == levels.ravel().tolist()
    *_, row_table, column_table = unpack(blob)[0]["forms"][0]
    assert row_table > 0
    assert column_table > 0


class Noted(Stream):
    """Notes the names of the planes, as the page has them, and the header text."""

    names: list[str]

    def plane(self, name, shape, tables):
        symbols = super().plane(name, shape, tables)
        if name == "text":
            self.names, self.text = [], symbols.tobytes().decode()
        else:
            self.names.append(re.sub(r"\d+$", "k", name))
        return symbols


ORDER = [plane for plane, *_ in (*SCHEDULE, *ROW_SCHEDULE[1:])]  # both tables begin or end with the levels
LEVELS = ORDER.index("levels")


def planes_of(golden: str) -> list[int]:
    """The rows of the page's tables that the planes of an artifact belong to, in the order of the stream."""
    stream, header = open_artifact((FOLDER / f"{golden}.bin").read_bytes(), Noted)
    read_tensors(stream, header)
    return [ORDER.index(name) for name in stream.names]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_library_follows_the_schedule_of_the_page(name):
    assert (SCHEDULE[-1][0], ROW_SCHEDULE[0][0]) == ("levels", "levels")
    # A plane comes after those above it in the table; going back means that the next tensor has begun, or the next row.
    for before, after in itertools.pairwise(planes_of(name)):
        assert after > before or after == 0 or (name == "trellis" and before >= after == LEVELS) or before == after == 0


def test_golden_artifacts_have_every_plane_of_the_page():
    assert {place for name in GOLDEN for place in planes_of(name)} == set(range(len(ORDER)))


def example(title: str) -> tuple[str, bytes]:
    """A worked example of the page: its text, and the artifact that it lists."""
    text = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^ *(\d+)  ([0-9a-f]+)  ", text.split("```")[1], re.MULTILINE)
    assert [int(offset) for offset, _ in lines] == [
        sum(len(digits) // 2 for _, digits in lines[:number]) for number in range(len(lines))
    ]
    return text, bytes.fromhex("".join(digits for _, digits in lines))


def test_the_example_of_the_page_is_what_encode_gives():
    text, page = example("An example")
    levels, scales = np.array([[1, -1], [0, 1]], np.int8), np.array([0.5, 2], np.float16)
    tensors = {
        "a": QuantizedTensor(levels, scales, np.array([128, 120], np.uint8)),
        "b": np.array([3], np.uint8),
    }
    assert encode(tensors, {}) == page
    assert decode(page)["a"].tolist() == [[0.5, -0.25], [0, 1]]
    assert f"\n    {open_artifact(page, Noted)[0].text}\n" in text


def test_the_example_of_a_trellis_is_what_encode_gives():
    text, page = example("An example of a trellis")
    trellis = Trellis(if_odd=5, if_half_odd=2, restart=3)
    rows = [[[int(each) for each in cell.split(",")] for cell in cells] for cells in level_rows(text)]
    levels = np.array([own for *_, own in rows], np.int32)
    row_steps, column_steps = np.array([128, 136, 120, 128], np.uint8), np.array([128, 132], np.uint8)
    tensor = QuantizedTensor(levels, np.array([0.5], np.float32), column_steps, row_steps, trellis)
    assert encode({"t": tensor}, {}) == page
    assert f"\n    {open_artifact(page, Noted)[0].text}\n" in text
    values = re.search(r"`t` is\s+(.*?), all exact", text, re.DOTALL)
    assert [[float(each) for each in row.split(",")] for row in values[1].split(";")] == decode(page)["t"].tolist()
    before = np.zeros(2, np.int64)
    for number, (states, tables, symbols, halves, own) in enumerate(rows):
        before *= number % 3 > 0
        assert (states, tables) == (before.tolist(), (2 + before % 2).tolist())
        assert halves == [-(each + 1) // 2 if each % 2 else each // 2 for each in symbols]
        assert own == (2 * np.array(halves) + before % 2).tolist()
        before = trellis.after(before, levels[number])


def level_rows(text: str) -> list[list[str]]:
    """Of an example the cells behind each plane of levels: states, tables, symbols, halves, levels."""
    lines = [line for line in text.splitlines() if line.startswith("| `levels` |")]
    return [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines]


@given(patterned_tensors())
@settings(max_examples=15)
def test_the_independent_reader_agrees_on_segments_and_predictions(tensor):
    blob = encode({"w": tensor}, {})
    _, _, scales, levels, _ = read(blob)[1]["w"]
    assert (scales, levels) == (tensor.scales.tobytes(), tensor.levels.ravel().tolist())
    assert np.array_equal(unpack(blob)[1]["w"].levels, tensor.levels)


@pytest.mark.parametrize("repeated", [False, True])
def test_the_independent_reader_agrees_on_classes_of_segments(repeated):
    levels = lattices(np.random.default_rng(2), 128, 256, 64)
    if repeated:  # rows predicted from the first one, so that predictions and segments meet
        levels[64:96] = levels[64]
    blob = encode({"w": QuantizedTensor(levels, np.ones(128, np.float16))}, {})
    form = unpack(blob)[0]["forms"][0]
    assert len(form) == (10 if repeated else 8)
    assert form[-1] == 4
    assert read(blob)[1]["w"][3] == levels.ravel().tolist()
    assert np.array_equal(unpack(blob)[1]["w"].levels, levels)


def test_the_independent_reader_agrees_on_predicted_rows():
    random = np.random.default_rng(1)
    levels = random.normal(0, 40, (60, 48)).round().clip(-128, 127).astype(np.int8)
    unused = [3, 4, 5, 9, 20, 21, 22, 30, 31, 33, 35, 37, 39, 40, 50, 55]
    levels[unused] = (levels[3] + random.normal(0, 1, (16, 48))).round().clip(-128, 127).astype(np.int8)
    levels[3, :2] = levels[4, :2] = -128, 127
    blob = encode({"w": QuantizedTensor(levels, np.ones(60, np.float16))}, {})
    assert len(unpack(blob)[0]["forms"][0]) == 9
    assert read(blob)[1]["w"][3] == levels.ravel().tolist()
    assert np.array_equal(unpack(blob)[1]["w"].levels, levels)
