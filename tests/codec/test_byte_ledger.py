"""What the ledger calls overhead: quantized tensors alone, against the entropy of their levels and their scales."""

import numpy as np
import pytest
from hypothesis import given, settings

from codec import QuantizedTensor, encode, ledger
from codec.decoder import Trellis
from codec.measurement.byte_ledger import copies, empirical_entropy_bits
from codec.measurement.compressors import packed_bytes, plain_bytes
from codec.measurement.measurement import measure_treated
from tests.golden.regenerate import MOVES, walk
from tests.strategies import state_dicts


def quantized(rows=300, columns=200, spread=9):
    random = np.random.default_rng(0)
    levels = random.normal(0, spread, (rows, columns)).round().clip(-31, 31).astype(np.int8)
    return QuantizedTensor(levels, random.uniform(1e-3, 2e-3, rows).astype(np.float16))


def text_table_bytes(blob: bytes) -> int:
    """The first stored table codes the header's text."""
    return blob[20] + 2


def test_overhead_of_quantized_tensors_is_the_file_without_its_header():
    tensors = {"a.weight": quantized(), "b.weight": quantized(spread=4)}
    blob = encode(tensors, {})
    costs = ledger(blob)
    entropy = sum(empirical_entropy_bits(each.levels) / 8 for each in tensors.values())
    spent = len(blob) - costs.header_bytes - text_table_bytes(blob)
    assert costs.overhead_percent == pytest.approx(100 * (spent / (entropy + costs.scale_bytes) - 1), abs=1e-9)
    assert 0 < costs.overhead_percent < 1
    assert costs.plain_bytes == 0
    assert costs.level_bytes == pytest.approx(entropy, rel=0.003)
    # 300 scales within one octave: 10 bits of mantissa, and next to nothing for sign and exponent.
    assert 2 * 300 * 10 / 8 < costs.scale_bytes + 30 < 2 * 300 * 11 / 8 + 30


def test_floats_beside_them_do_not_change_it():
    random = np.random.default_rng(1)
    tensors = {"a.weight": quantized()}
    floats = {f"{name}.table": random.normal(size=(400, 50)).astype(name) for name in ("float16", "float32")}
    alone, together = ledger(encode(tensors, {})), ledger(encode(tensors | floats, {}))
    assert together.table_bytes > alone.table_bytes + 200  # float tables, about 1.5 % of the levels
    assert together.quantized_table_bytes == alone.quantized_table_bytes
    assert together.overhead_percent == pytest.approx(alone.overhead_percent, abs=0.05)
    assert together.plain_bytes == pytest.approx(sum(row.bytes for row in together.rows if "table" in row.name))
    only_floats = ledger(encode(floats, {}))
    assert (only_floats.overhead_percent, only_floats.quantized_table_bytes) == (0.0, 0)


@given(state_dicts)
@settings(max_examples=60)
def test_parts_add_up(tensors):
    blob = encode(tensors, {})
    costs = ledger(blob)
    parts = costs.level_bytes + costs.scale_bytes + costs.column_step_bytes + costs.plain_bytes
    assert parts == pytest.approx(sum(row.bytes for row in costs.rows))
    assert 0 <= costs.quantized_table_bytes <= costs.table_bytes - text_table_bytes(blob)
    named = {row.name: row for row in costs.rows}
    for name, tensor in tensors.items():
        row = named[name]
        assert row.quantized == (isinstance(tensor, QuantizedTensor) and row.stored_as != "tied")
        assert row.weights == (tensor.levels if isinstance(tensor, QuantizedTensor) else tensor).size


def test_column_steps_are_side_information_by_name_and_count_in_every_baseline():
    random = np.random.default_rng(0)
    steps = np.clip(np.rint(random.normal(128, 6, 2000)), 0, 255).astype(np.uint8)
    plain = {name: quantized(60, 2000) for name in ("c_k", "c_q")}
    plain["c_q"] = QuantizedTensor(plain["c_q"].levels[::-1].copy(), plain["c_q"].scales)
    stepped = {name: each._replace(column_steps=steps) for name, each in plain.items()}
    without, costs = ledger(encode(plain, {})), ledger(encode(stepped, {}))
    first, second = costs.rows
    assert second.column_step_bytes == 0
    assert first.column_step_bytes == costs.column_step_bytes == pytest.approx(2000 * 4.6 / 8, rel=0.1)
    assert first.bytes == first.payload_bytes + first.scale_bytes + first.column_step_bytes + first.class_bytes
    assert costs.entropy_bits == without.entropy_bits  # of the levels alone
    assert costs.scale_bytes == pytest.approx(without.scale_bytes)
    # Like scales they are in what the quantized tensors cost, and in what that is compared with.
    spent = costs.artifact_bytes - costs.header_bytes - text_table_bytes(encode(stepped, {}))
    ideal = costs.entropy_bits / 8 + costs.scale_bytes + costs.column_step_bytes
    assert costs.overhead_percent == pytest.approx(100 * (spent / ideal - 1), abs=1e-9)
    assert packed_bytes(stepped) == packed_bytes(plain) + 2000  # one vector, shared
    assert plain_bytes(stepped).count(steps.tobytes()) == 2  # a compressor finds the repeat by itself
    assert measure_treated(stepped, recipe="stepped").to_dict()["column_step_bytes"] == costs.column_step_bytes


def test_a_trellis_is_measured_by_halves_since_its_states_tell_the_rest():
    random = np.random.default_rng(0)
    halves = random.normal(0, 2, (200, 300)).round().astype(np.int64)
    trellis, steps = Trellis(*MOVES[8], 512), random.integers(120, 136, 300).astype(np.uint8)
    scale, row_steps = np.ones(1, np.float32), np.zeros(200, np.uint8)
    tensor = QuantizedTensor(walk(halves, trellis), scale, steps, row_steps, trellis)
    tensors = {"a": tensor, "b": tensor._replace(levels=walk(-halves, trellis))}
    (row, other) = (costs := ledger(encode(tensors, {}))).rows
    assert (row.stored_as, other.column_step_bytes) == ("trellis", 0)
    assert row.entropy_bits == pytest.approx(empirical_entropy_bits(halves))
    assert row.payload_bytes == pytest.approx(row.entropy_bits / 8, rel=0.01)
    assert row.column_step_bytes == pytest.approx(300 * 4 / 8, rel=0.05)
    assert costs.overhead_percent < 1
    bits = int(halves.max()).bit_length() + 1
    side = 4 + 200
    assert packed_bytes(tensors) == 2 * (200 * 300 * bits // 8 + side) + 300
    assert len(plain_bytes(tensors)) == 2 * (200 * 300 + side + 300)
    halves[0, 0] = 128
    tensors = {"a": tensor._replace(levels=walk(halves, trellis))}
    assert len(plain_bytes(tensors)) == 2 * 200 * 300 + side + 300
    assert packed_bytes(tensors) == 200 * 300 * 9 // 8 + side + 300
    even = tensor._replace(levels=walk(halves, Trellis(0, 0, 512)), trellis=Trellis(0, 0, 512))
    found = measure_treated({"a": even}, recipe="uniform").ledger.rows[0]
    assert (found.stored_as, found.quantized) == ("uniform", True)
    assert measure_treated(tensors, recipe="far").ledger.rows[0].payload_bytes > row.payload_bytes


def test_a_copy_that_is_treated_in_another_way_is_no_weight():
    random = np.random.default_rng(3)
    table, other = random.normal(size=(40, 8)).astype(np.float32), random.normal(size=(40, 8)).astype(np.float32)
    floats = {"emb": table, "head": table.copy(), "other": other, "zeros": np.zeros(9, np.float32), "more": np.zeros(9)}
    copied = copies(floats)
    assert copied == {"head"}
    treated = {**floats, "emb": table.astype(np.float16), "head": quantized()}
    rows = {row.name: row.weights for row in ledger(encode(treated, {}), copied).rows}
    assert (rows["head"], rows["emb"], rows["other"], rows["zeros"]) == (0, 320, 320, 9)
