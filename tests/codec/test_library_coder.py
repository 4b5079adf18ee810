"""codec/measurement/library_coder.py: bounds that hold, and ours beside them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import Recipe, Rule, measure
from codec.measurement.byte_ledger import empirical_entropy_bits
from codec.measurement.library_coder import BLOCK, library_bytes


@given(st.lists(st.integers(-300, 300), max_size=3000))
def test_the_static_coder_needs_the_entropy(values):
    levels = np.array(values, np.int32)
    static, adaptive = library_bytes(levels)
    entropy = empirical_entropy_bits(levels) / 8
    assert entropy - 1e-6 <= static <= entropy * 1.001 + 8
    assert adaptive >= static - 8 or len(values) > BLOCK


def test_the_adaptive_coder_pays_for_learning_and_gains_where_levels_change():
    random = np.random.default_rng(0)
    alike = random.normal(0, 3, (400, 256)).round().astype(np.int8)
    static, adaptive = library_bytes(alike)
    assert 1.0 < adaptive / static < 1.01
    one, other = (np.full(50_000, level, np.int8) for level in (0, 1))
    static, adaptive = library_bytes(np.concatenate([one, other]))
    assert static == pytest.approx(100_000 / 8, rel=0.01)
    assert adaptive < static


def test_ours_is_beside_them_for_every_quantized_tensor():
    """Levels of one distribution: no classes to gain from, so ours is the static coder's, to a part of a percent."""
    random = np.random.default_rng(1)
    tensors = {"w": random.standard_normal((300, 512)).astype(np.float32), "b": np.ones(5, np.float32)}
    rules = (Rule.of(treatment="float16", max_weights=10), Rule.of(treatment="int6", step="std", k=12.85))
    found = measure(tensors, Recipe(name="six", about="", coder="zstd-22", rules=rules))
    assert found.tensor_library_bytes.keys() == {"w"}
    row = next(row for row in found.ledger.rows if row.name == "w")
    assert row.payload_bytes + row.class_bytes == pytest.approx(found.tensor_library_bytes["w"].static, rel=2e-3)
