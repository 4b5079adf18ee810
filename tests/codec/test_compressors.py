"""The field's compressors: what they are given, and that each gives it back."""

import brotli
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.decoder import QuantizedTensor
from codec.measurement.compressors import (
    BASELINES,
    COMPRESSORS,
    baseline_bytes,
    level_bits,
    packed_bytes,
    plain_bytes,
    shuffle,
    unshuffle,
)


def tensor(levels, rows=1):
    return QuantizedTensor(np.array(levels, np.int8), np.ones(rows, np.float16))


@pytest.mark.parametrize(
    ("lowest", "highest", "bits"),
    [(0, 0, 1), (-1, 0, 1), (-1, 1, 2), (-32, 31, 6), (-32, 32, 7), (-33, 0, 7), (-127, 127, 8), (-128, 0, 8)],
)
def test_level_bits_are_those_of_the_smallest_signed_integer(lowest, highest, bits):
    assert level_bits(np.array([lowest, highest], np.int8)) == bits


def test_bit_packing_counts_whole_bytes_per_tensor_and_everything_else_as_it_is():
    tensors = {
        "int6": tensor([[-32, 31, 0], [1, 2, 3]], rows=2),  # 36 bits -> 5 bytes, and 4 of scales
        "zeros": tensor([0] * 9),  # 9 bits -> 2 bytes, and 2
        "empty": QuantizedTensor(np.zeros((0, 4), np.int8), np.zeros(0, np.float16)),
        "plain": np.zeros((3, 5), np.float16),  # 30
        "scalar": np.float32(1.5).reshape(()),  # 4
    }
    assert packed_bytes(tensors) == baseline_bytes("bit-packing", tensors) == 5 + 4 + 2 + 2 + 0 + 30 + 4


def test_plain_bytes_are_levels_then_scales_in_name_order_whatever_the_mapping_order():
    scales = np.array([0.5, 2], np.float16)
    tensors = {"b": np.array([7], "<i2"), "a": QuantizedTensor(np.array([[1, -1], [2, -2]], np.int8), scales)}
    assert plain_bytes(tensors) == b"\x01\xff\x02\xfe" + scales.tobytes() + b"\x07\x00"


def test_shuffle_puts_even_bytes_first():
    assert shuffle(b"aAbBc") == b"abcAB"


@given(st.binary(max_size=300))
def test_unshuffle_is_the_inverse(data):
    assert unshuffle(shuffle(data)) == data


@pytest.mark.parametrize("name", COMPRESSORS)
@given(data=st.binary(max_size=300))
def test_every_compressor_gives_back_what_it_was_given(name, data):
    compress, decompress = COMPRESSORS[name]
    assert decompress(compress(data)) == data


def test_baselines_measure_the_plain_bytes():
    random = np.random.default_rng(0)
    tensors = {
        "w": tensor(np.rint(random.normal(0, 3, (40, 50))), rows=40),
        "halves": random.normal(size=900).astype("f2"),
    }
    data = plain_bytes(tensors)
    assert baseline_bytes("brotli-11", tensors) == len(brotli.compress(data, quality=11, lgwin=24))
    assert baseline_bytes("brotli-11-shuffle", tensors) == len(brotli.compress(data[::2] + data[1::2], lgwin=24))
    for name in BASELINES:
        assert 0 < baseline_bytes(name, tensors) < 1.02 * len(data)
