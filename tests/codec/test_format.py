"""docs/format.md is enough: a reader written from it agrees with the library."""

import numpy as np
import pytest
from hypothesis import given, settings

from codec import QuantizedTensor, encode, unpack
from tests.codec.reader import read
from tests.strategies import lattices, patterned_tensors, state_dicts


@given(state_dicts)
@settings(max_examples=60)
def test_the_independent_reader_agrees(tensors):
    meta, back = read(encode(tensors, {"a": 1}))
    assert meta == {"a": 1}
    assert list(back) == sorted(tensors)
    for name, tensor in tensors.items():
        if isinstance(tensor, QuantizedTensor):
            kind, shape, scales, levels = back[name]
            assert kind == ("row" if tensor.scales.dtype == np.float16 else "all")
            assert scales == tensor.scales.tobytes()
            assert levels == tensor.levels.ravel().tolist()
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


@given(patterned_tensors())
@settings(max_examples=15)
def test_the_independent_reader_agrees_on_segments_and_predictions(tensor):
    blob = encode({"w": tensor}, {})
    _, _, scales, levels = read(blob)[1]["w"]
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
