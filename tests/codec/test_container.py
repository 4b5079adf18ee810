"""encode -> unpack gives back the same bits; hostile bytes give a CodecError, never a wrong array."""

import json
import math
import struct
import tracemalloc
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import CodecError, QuantizedTensor, decode, encode, ledger, read_meta, unpack
from codec.decoder import Stream, Trellis, octaves
from tests.golden.regenerate import walk
from tests.strategies import state_dicts, trellis_tensors


def same(left, right) -> bool:
    if isinstance(left, QuantizedTensor):
        return isinstance(right, QuantizedTensor) and all(
            one is other is None or same(one, other) for one, other in zip(left, right, strict=True)
        )
    if left is None or right is None or isinstance(left, Trellis):
        return left == right
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def small_artifact() -> bytes:
    random = np.random.default_rng(5)
    levels = random.normal(0, 6, (6, 10)).round().astype(np.int8)
    steps = np.arange(120, 130, dtype=np.uint8)
    tensors = {
        "a.weight": QuantizedTensor(levels, random.random(6).astype(np.float16), steps),
        "b": np.arange(3.0),
        "tied": QuantizedTensor(levels, np.ones(6, np.float16), steps),
        "b2": np.arange(3.0),
    }
    return encode(tensors, {"config": {"width": 10}})


@given(state_dicts, st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3))
@settings(max_examples=150)
def test_round_trip_is_exact(tensors, meta):
    blob = encode(tensors, meta)
    header, back = unpack(blob)
    assert list(back) == sorted(tensors)
    assert all(same(tensors[name], back[name]) for name in tensors)
    assert header["meta"] == meta == read_meta(blob)


@given(state_dicts)
@settings(max_examples=50)
def test_order_of_names_does_not_change_the_bytes(tensors):
    assert encode(dict(reversed(tensors.items())), {}) == encode(tensors, {})


@given(state_dicts)
@settings(max_examples=50)
def test_ledger_accounts_for_every_byte(tensors):
    blob = encode(tensors, {})
    account = ledger(blob)
    total = sum(row.bytes for row in account.rows) + account.header_bytes + account.table_bytes + account.lane_bytes
    assert total == pytest.approx(len(blob))
    # 4 bytes of state per lane, less the up to 2 bytes that its start value saves; plus word rounding.
    lanes = struct.unpack_from("<I", blob, 12)[0]
    assert -0.1 <= account.lane_bytes <= 4 * lanes + 2


def test_decode_multiplies_each_row_by_its_scale():
    levels = np.array([[1, -2], [3, 4]], np.int8)
    blob = encode(
        {
            "w": QuantizedTensor(levels, np.array([0.5, 2], np.float16)),
            "h": np.float16([1.5]),
            "n": np.array([7], np.int64),
        },
        {},
    )
    floats = decode(blob)
    assert floats["w"].tolist() == [[0.5, -1.0], [6.0, 8.0]]
    assert floats["w"].dtype == floats["h"].dtype == np.float32
    assert floats["n"].dtype == np.int64


def test_equal_tensors_are_stored_once():
    noise = np.random.default_rng(0).integers(-32, 32, (100, 100)).astype(np.int8)
    one = QuantizedTensor(noise, np.ones(100, np.float16))
    single, double = encode({"a": one}, {}), encode({"a": one, "b": one}, {})
    assert len(double) < len(single) + 40
    assert same(unpack(double)[1]["b"], one)


@pytest.mark.parametrize(
    "tensor",
    [
        np.array(["text"]),
        np.array([1j]),
        QuantizedTensor(np.zeros((2, 2), np.int8), np.zeros(3, np.float16)),
        QuantizedTensor(np.zeros((2, 2), np.int16), np.zeros(2, np.float16)),
        QuantizedTensor(np.zeros((), np.int8), np.zeros(1, np.float16)),
    ],
)
def test_what_an_artifact_cannot_hold_is_refused(tensor):
    with pytest.raises(CodecError, match="bad"):
        encode({"bad": tensor}, {})


def allowed() -> QuantizedTensor:
    trellis = Trellis(5, 2, 512)
    levels = walk(np.arange(-12, 12).reshape(4, 6), trellis)
    steps = np.arange(6, dtype=np.uint8)
    return QuantizedTensor(levels, np.ones(1, np.float32), steps, steps[:4], trellis)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"levels": allowed().levels + np.eye(4, 6, dtype=np.int32)}, "levels of row 0 are not those that its trellis"),
        ({"levels": allowed().levels[::-1]}, "levels of row . are not those that its trellis"),
        ({"levels": allowed().levels + np.int32(1 << 17)}, "level of 1310.., at most 65536 fits"),
        ({"levels": np.full((4, 6), -(1 << 31), np.int32)}, "level of 2147483648, at most 65536 fits"),
        ({"levels": np.zeros((4, 6), np.int8)}, "levels int8 do not go with scales float32"),
        ({"levels": np.zeros((4, 6), np.int64)}, "levels int64 do not go with scales float32"),
        ({"scales": np.ones(4, np.float16)}, r"levels int32 do not go with scales float16 \(4,\)"),
        ({"scales": np.ones(4, np.float32)}, r"levels int32 do not go with scales float32 \(4,\)"),
        ({"row_steps": None}, r"has no row steps; a trellis has some, uint8 \(4,\)"),
        ({"column_steps": None}, r"has no column steps; a trellis has some, uint8 \(6,\)"),
        ({"row_steps": np.zeros(3, np.uint8)}, r"has uint8 \(3,\) as row steps"),
        ({"column_steps": np.zeros(4, np.uint8)}, r"has uint8 \(4,\) as column steps"),
        ({"row_steps": np.zeros(4, np.int8)}, r"has int8 \(4,\) as row steps"),
        ({"trellis": Trellis(5, 2, 0)}, "restart=0.* restart at least 1"),
        ({"trellis": Trellis(-1, 2, 512)}, "if_odd=-1.* cannot hold"),
        ({"trellis": Trellis(5, 1 << 29, 512)}, "if_half_odd=536870912.* cannot hold"),
        ({"trellis": Trellis(5, np.int64(2), 512)}, "numbers that an artifact cannot hold"),
        ({"trellis": None}, "levels int32"),
        ({"trellis": None, "levels": np.zeros((4, 6), np.int8), "column_steps": None}, "row steps and no trellis"),
    ],
)
def test_what_a_trellis_does_not_allow_is_refused(changed, reason):
    encode({"good": allowed()}, {})
    with pytest.raises(CodecError, match=reason) as caught:
        encode({"bad": allowed()._replace(**changed)}, {})
    assert "tensor `bad`" in str(caught.value)


@given(trellis_tensors())
@settings(max_examples=60)
def test_a_trellis_has_the_values_of_its_formula(tensor):
    found = decode(encode({"w": tensor}, {}))["w"]
    rows = tensor.levels.reshape(tensor.rows, -1 if tensor.levels.size else tensor.levels.size)
    steps = octaves(tensor.column_steps).astype(np.float64) * octaves(tensor.row_steps).astype(np.float64)[:, None]
    with np.errstate(all="ignore"):
        expected = (rows * steps * tensor.scales.astype(np.float64)).astype(np.float32).reshape(tensor.levels.shape)
    assert np.array_equal(found, expected, equal_nan=True)


@given(trellis_tensors())
@settings(max_examples=60)
def test_a_trellis_encodes_to_the_same_bytes_again(tensor):
    blob = encode({"w": tensor, "tied": tensor}, {})
    assert encode(unpack(blob)[1], {}) == blob


def test_matrices_of_one_input_share_their_column_steps():
    random = np.random.default_rng(0)

    def tensor(columns, steps):
        levels = random.integers(-8, 8, (20, columns)).astype(np.int8)
        return QuantizedTensor(levels, np.ones(20, np.float16), steps)

    first, second = random.integers(0, 12, (2, 300)).astype(np.uint8)
    wide = np.arange(256, dtype=np.uint8)
    tensors = {
        "c_k": tensor(300, first),
        "c_proj": tensor(256, wide),
        "c_q": tensor(300, first),
        "d": tensor(300, second),
        "e": tensor(300, first),
    }
    blob = encode(tensors, {})
    header, back = unpack(blob)
    assert all(same(tensors[name], back[name]) for name in tensors)
    assert [header["forms"][form][0] for _, _, form in header["names"]] == ["row*", "row*", "row=", "row*", "row*"]
    costs = {row.name: row.column_step_bytes for row in ledger(blob).rows}
    assert costs["c_q"] == 0
    assert 0.4 * 300 < costs["c_k"] < 0.6 * 300  # log2(12) = 3.6 bits each
    assert decode(blob)["d"].tolist() == tensors["d"].dequantize().tolist()


@pytest.mark.parametrize(
    "steps",
    [np.zeros(3, np.uint8), np.zeros((1, 4), np.uint8), np.zeros(4, np.int8), np.zeros(2, np.uint8)],
)
def test_column_steps_that_do_not_fit_are_refused(steps):
    levels = np.zeros((2, 4), np.int8)
    with pytest.raises(CodecError, match=r"bad.*column steps .* do not go with"):
        encode({"bad": QuantizedTensor(levels, np.ones(2, np.float16), steps)}, {})


def test_column_steps_need_scales_of_rows():
    levels, steps = np.zeros((2, 4), np.int8), np.zeros(8, np.uint8)
    with pytest.raises(CodecError, match="float16 scales of the rows"):
        encode({"bad": QuantizedTensor(levels, np.ones(1, np.float32), steps)}, {})


def test_every_truncation_is_refused():
    blob = small_artifact()
    for length in range(len(blob)):
        with pytest.raises(CodecError):
            decode(blob[:length])
    with pytest.raises(CodecError):
        decode(blob + b"\0")


def test_every_single_bit_flip_is_refused():
    blob = small_artifact()
    for position in range(8 * len(blob)):
        flipped = bytearray(blob)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(CodecError):
            decode(bytes(flipped))


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=300)
def test_random_bytes_are_refused(noise, keep_magic):
    with pytest.raises(CodecError):
        decode(b"PGA1" + noise if keep_magic else noise)


def forge(header: dict, more_tables: int = 0, planes: Sequence[Sequence[int]] = (), lanes: int = 1) -> bytes:
    """An artifact with a valid checksum around any header text and planes, coded with 8 flat bits per symbol."""
    from codec.decoder import frequencies
    from codec.entropy.rans import rans_encode

    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    flat = np.full(256, 1, np.uint8)
    table = bytes([255]) + flat.tobytes() + more_tables * bytes([0, 1])
    symbols = [np.array(plane, np.uint8) for plane in planes[::-1]]
    coded = [(each, np.ones(len(each), np.int64)) for each in (*symbols, text)]
    states, words = rans_encode(coded, np.stack([frequencies(flat)] * 2), lanes)
    body = (
        b"PGA1"
        + struct.pack("<4I", len(text), len(table), lanes, len(words))
        + table
        + states.tobytes()
        + words.tobytes()
    )
    return body + struct.pack("<I", zlib.crc32(body))


def test_forged_header_helper_is_accepted_when_honest():
    assert decode(forge({"meta": {}, "forms": [], "names": []})) == {}


@pytest.mark.parametrize(
    "header",
    [
        {"meta": {}, "forms": [["row", [1 << 30, 1 << 30], [0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["<f4", [1 << 60], [0, 0, 0, 0]]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["<f4", [-1], [0, 0, 0, 0]]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["<f4", [1.5], [0, 0, 0, 0]]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["|O", [1], [0] * 8]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["<f4", [1], [9, 9, 9, 9]]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["<f4", [1], [-1, 0, 0, 0]]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [], [0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [2, 2], [0, 0], 1 << 40, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [2, 4], [0, 0], 0, 0, 1, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [2, 4], [0, 0], 0, 0, 1, 0, 3]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [2, 0], [0, 0], 0, 0, 1, 0, 1 << 60]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [2, 4], [0, 0], 0, 0, 1, 0, 1 << 60]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [1 << 40, 0], [0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [1 << 27, 0], [0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["<f4", [1 << 28, 0], [0, 0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [1 << 24, 1], [0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [0, 4], [0, 0], 0, 1 << 50, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [0, 4], [0, 0], 0.5, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [0, True], [0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [[None, [0], [0] * 8]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [0, 4], [0, 0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row*", [2, 4], [0, 0, 0]]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row*", [2, 4], [0, 0], 0, 0, 1, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row*", [2, 4], [0, 0, 9], 0, 0, 1, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row*", [0, 4], [0, 0, 0.5], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row*", [2, 1 << 28], [0, 0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row=", [0, 0], [0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row=", [0, 0], [0, 0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["all*", [0], [0] * 5, 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [0] * 65, [0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [1 << 28] * 1000, [0, 0], 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [0, 4], [0, 0]]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [0, 4], [0, 0], 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["<f4", [1 << 18], [0] * 5000]], "names": [[0, "w", 0]]},
        *(
            {"meta": {}, "forms": [["trellis", shape, tables, *numbers]], "names": [[0, "w", 0]]}
            for shape, tables, numbers in [
                ([2, 4], [0] * 6, [0, 0, 0, 1, 5, 2, 0, 0, 0, 0]),  # restart 0
                ([0, 4], [0] * 6, [0, 0, 0, 1, 5, 2, 0, 0, 0, 0]),
                ([2, 4], [0] * 6, [0, 0, 0, 1, 5, 2, -1, 0, 0, 0]),
                ([2, 4], [0] * 6, [0, 0, 0, 1, 5, 2, 512, 0, 0, 1]),  # column steps of nobody
                ([2, 4], [0] * 6, [0, 0, 0, 1, 5, 2, 512, 0, 0, 1 << 28]),
                ([0, 0], [0] * 6, [0, 0, 0, 1, 5, 2, 512, 0, 0, 3]),
                ([2, 4], [0] * 6, [0, 0, 0, 1, 1 << 29, 2, 512, 0, 0, 0]),  # moves
                ([2, 4], [0] * 6, [0, 0, 0, 1, 5, 1 << 70, 512, 0, 0, 0]),
                ([2, 4], [0] * 6, [0, 0, 0, 1, 5, -2, 512, 0, 0, 0]),
                ([2, 4], [0] * 6, [0, 0, 0, 3, 5, 2, 512, 0, 0, 0]),  # segments
                ([2, 4], [0] * 6, [0, 0, 0, 0, 5, 2, 512, 0, 0, 0]),
                ([2, 4], [0] * 5, [0, 0, 0, 1, 5, 2, 512, 0, 0, 0]),  # tables
                ([2, 4], [0] * 7, [0, 0, 0, 1, 5, 2, 512, 0, 0, 0]),
                ([2, 4], [0] * 5 + [9], [0, 0, 0, 1, 5, 2, 512, 0, 0, 0]),
                ([2, 4], [0] * 6, [1 << 28, 0, 0, 1, 5, 2, 512, 0, 0, 0]),
                ([2, 4], [0] * 6, [0, 0, 0, 0, 0, 0]),  # numbers of other kinds
                ([2, 4], [0] * 6, []),
                ([(1 << 18) + 1, 1], [0] * 6, [0, 0, 0, 1, 5, 2, 512, 0, 0, 0]),  # rows
                ([1 << 28, 0], [0] * 6, [0, 0, 0, 1, 5, 2, 512, 0, 0, 0]),
                ([1 << 20, 1 << 20], [0] * 6, [0, 0, 0, 1, 5, 2, 512, 0, 0, 0]),
            ]
        ),
        {"meta": {}, "forms": [["row", [2, 4], [0, 0], 0, 0, 0, 1, 5, 2, 512, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [["row", [2, 4], [0, 0], 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [], "names": [[0, "w", 0]]},
        {"meta": {}, "forms": [], "names": [[0, "w", -1]]},
        {"meta": {}, "forms": [["<f4", [0], [0, 0, 0, 0]]], "names": [[0, "w", 0], [1, "", 0]]},
        {"meta": {}, "forms": [["<f4", [1], [0, 0, 0, 0]]], "names": [[0, "w", 0]]},
        {"meta": [], "forms": 3, "names": None},
        [],
    ],
)
def test_a_lying_header_is_refused_before_anything_large_is_allocated(header):
    blob = forge(header)
    tracemalloc.start()
    with pytest.raises(CodecError):
        decode(blob)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("odd_tables", [0, 1, 1 << 28])
def test_a_table_of_odd_states_that_is_not_there_is_refused(odd_tables):
    form = ["trellis", [3, 1], [0] * 6, 1, 0, 0, 1, 5, 2, 512, odd_tables, 0, 0]
    # Scale, steps, and halves 1, 0, 0: the state of the last row is odd.
    planes = [[0], [0], [0], [0], [128], [128] * 3, [2], [0], [0]]
    blob = forge({"meta": {}, "forms": [form], "names": [[0, "w", 0]]}, planes=planes)
    if odd_tables == 0:
        assert unpack(blob)[1]["w"].levels.ravel().tolist() == [2, 0, 1]
    else:
        with pytest.raises(CodecError, match="header cannot be read"):
            unpack(blob)


@pytest.mark.parametrize("reference", [0, 1, 2, 3])
def test_a_prediction_from_the_row_itself_or_a_later_one_is_refused(reference):
    header = {"meta": {}, "forms": [["row", [3, 2], [0, 0], 0, 0, 0, 0, 0, 0]], "names": [[0, "w", 0]]}
    # Scales, low and high bytes; multiple 8/8 for the second row; its reference, low and high byte; levels.
    blob = forge(header, planes=[[0, 0, 0], [60, 60, 60], [0, 17, 0], [reference], [0], [1] * 6])
    if reference == 0:
        assert unpack(blob)[1]["w"].levels.tolist() == [[1, 1], [2, 2], [1, 1]]
    else:
        with pytest.raises(CodecError, match="order of rows"):
            unpack(blob)


def test_tables_are_laid_out_one_by_one():
    """511 tables of two bytes each, 1,189 bytes of artifact: 64 MiB of lookup, not four times that."""
    tracemalloc.start()
    assert decode(forge({"meta": {}, "forms": [], "names": []}, more_tables=509)) == {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80_000_000


def test_tied_tensors_are_dequantized_once():
    tensor = QuantizedTensor(np.arange(100, dtype=np.int8).reshape(10, 10), np.ones(10, np.float16))
    back = decode(encode({f"w{number}": tensor for number in range(5)}, {}))
    assert len({id(array) for array in back.values()}) == 1


@pytest.mark.parametrize("meta", [{"loss": math.nan}, {"width": np.float32(1)}, {"text": "x" * (1 << 22)}])
def test_metadata_that_cannot_be_stored_is_refused(meta):
    with pytest.raises(CodecError, match="metadata"):
        encode({}, meta)


def test_more_weights_in_total_than_a_decoder_reads_are_refused(monkeypatch):
    monkeypatch.setattr("codec.encoder.MAX_BYTES", 100)
    with pytest.raises(CodecError, match="less than 100"):
        encode({"a": np.zeros(60, np.int8), "b": np.ones(60, np.int8)}, {})


def test_unknown_version_is_named():
    with pytest.raises(CodecError, match="version"):
        decode(b"PGA9" + small_artifact()[4:])


def test_stream_that_ends_early_is_refused():
    from codec.decoder import frequencies

    uniform = frequencies(np.full(256, 1, np.uint8))[None]
    stream = Stream(uniform, np.array([1 << 16]), np.zeros(0, np.uint16))
    with pytest.raises(CodecError, match="ends early"):
        stream.take(np.zeros(50, np.int64))


def test_many_groups_of_wild_spread_stay_within_the_formats_tables():
    random = np.random.default_rng(0)
    wild = np.exp2(random.uniform(-6, 6, (400, 1)) + random.uniform(-6, 6, 300))
    noise = random.normal(size=(400, 300)) * wild
    tensors = {
        f"int{bits}": QuantizedTensor(
            noise.round().clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int8), np.ones(400, np.float16)
        )
        for bits in range(2, 9)
    }
    tensors |= {dtype: noise.astype(dtype) for dtype in ("float16", "float32", "float64")}
    back = unpack(encode(tensors, {}))[1]
    assert all(same(tensors[name], back[name]) for name in tensors)
