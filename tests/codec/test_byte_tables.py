"""Scales that differ from tensor to tensor get tables of their own, and everything still fits the format."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from codec import QuantizedTensor, encode, ledger, unpack
from codec.entropy.byte_tables import byte_tables


def planes(values: dict[str, np.ndarray]) -> dict[str, list[tuple[str, np.ndarray]]]:
    return {name: [("row", each.astype(np.uint8))] for name, each in values.items()}


def entropy(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def test_two_kinds_of_planes_get_two_tables_and_likes_share_theirs():
    random = np.random.default_rng(0)
    low = {f"low.{number}": random.integers(10, 14, 4000) for number in range(3)}
    high = {f"high.{number}": random.integers(90, 94, 3000) for number in range(3)}
    found = byte_tables(planes(low | high), most=9)
    tables = {
        name.split(".")[0]: {found.planes[each][0] for each in found.planes if each[0] == name[0]}
        for name in low | high
    }
    assert len(tables["low"]) == len(tables["high"]) == 1
    assert tables["low"] != tables["high"]


def test_scales_of_different_sizes_cost_less_than_under_one_table():
    random = np.random.default_rng(0)
    levels = np.zeros((3000, 1), np.int8)
    tensors = {
        f"layer.{number}": QuantizedTensor(levels, (random.uniform(1, 4, 3000) * 2.0**-number).astype(np.float16))
        for number in range(8)
    }
    blob = encode(tensors, {})
    together = np.concatenate([each.scales.view(np.uint8)[1::2] for each in tensors.values()])
    alone = sum(entropy(each.scales.view(np.uint8)[1::2]) for each in tensors.values())
    low_bytes = sum(entropy(each.scales.view(np.uint8)[::2]) for each in tensors.values())
    costs = ledger(blob)
    spent = costs.scale_bytes + costs.table_bytes + costs.header_bytes - low_bytes
    assert alone < spent < entropy(together) - 4000
    for name, tensor in unpack(blob)[1].items():
        assert tensor.scales.tobytes() == tensors[name].scales.tobytes()


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.tuples(st.integers(0, 200), st.integers(0, 3000), st.integers(1, 40)),
        min_size=1,
        max_size=12,
    ),
    st.integers(-3, 4),
)
def test_every_plane_is_counted_in_the_table_it_names(drawn, most):
    random = np.random.default_rng(len(drawn))
    values = {name: start + random.integers(0, width, count) for name, (start, count, width) in drawn.items()}
    found = byte_tables(planes(values), most)
    assert len(found.counts) <= 1 + max(most, 0)
    expected = [np.zeros(256, np.int64) for _ in found.counts]
    for name, numbers in found.planes.items():
        for number in filter(None, numbers):
            expected[number - 1] += np.bincount(values[name], minlength=256)
    assert all(np.array_equal(one, other) for one, other in zip(found.counts, expected, strict=True))


def test_more_kinds_of_scales_than_the_format_has_tables():
    random = np.random.default_rng(0)
    levels = np.zeros((800, 1), np.int8)
    tensors = {}
    for number in range(450):
        few = random.integers(0, 1 << 14, 6).astype(np.uint16).view(np.float16)
        tensors[f"layer.{number}"] = QuantizedTensor(levels, random.choice(few, 800))
    blob = encode(tensors, {})
    assert ledger(blob).scale_bytes < 450 * 800 * 1.5  # most of them do have a table of their own
    for name, tensor in unpack(blob)[1].items():
        assert tensor.scales.tobytes() == tensors[name].scales.tobytes()
