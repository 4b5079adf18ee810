"""State dicts of levels -1, 0, 1: a mask of the nonzero ones, their signs, and a float16 scale per group of weights.

Groups of 128 consecutive weights of a row (rows are padded with zeros to whole groups) were turned by a Hadamard
matrix before they were rounded, so levels and weights live in different bases.

Source: openai/parameter-golf, records/track_10min_16mb/2026-03-25_Ternary_Feedback_TTT, `q_sd` and `deq_sd` of its
train_gpt.py.  Its real file agrees: turned back, the padding of every tensor is zero to the last bit.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError
from packager.importers.torch_file import arrays

TERNARY, PLAIN = "ternary_bitmask", "fp16"
HINT = "only the rotated ternary export of openai/parameter-golf's record 2026-03-25_Ternary_Feedback_TTT is read"


class Ternary(NamedTuple):
    """tensors: the weights, float32, in their own shapes.  stored: levels as int8 (groups, weights), a scale per group.

    repeated: names of tensors whose padded groups repeat their first levels, of which `stored` has one period.
    """

    tensors: dict[str, np.ndarray]
    stored: dict[str, QuantizedTensor | np.ndarray]
    repeated: list[str]


def is_ternary(content: Mapping[Any, Any]) -> bool:
    """Whether every entry is a dictionary of a type that this format has, and at least one is ternary."""
    types = [each.get("type") if isinstance(each, Mapping) else None for each in content.values()]
    return TERNARY in types and all(each in (TERNARY, PLAIN) for each in types)


def read_ternary(content: Mapping[Any, Any], limit: int) -> Ternary:
    """content: as `is_ternary` accepts it.  limit: bytes that all weights together may take as float32.

    Raises: InputError for entries that lack a part, contradict themselves or unfold beyond the limit.
    """
    parts = {name: each.get("scale" if each["type"] == TERNARY else "data") for name, each in content.items()}
    values, others = arrays(parts, limit)
    if others:
        raise InputError("has no tensor of scales or of data", where=f"tensor `{others[0]}`", hint=HINT)
    packed = {name: _checked(name, each, values[name]) for name, each in content.items() if each["type"] == TERNARY}
    size = 4 * sum(each.rows * each.padded for each in packed.values())
    if size > limit:  # one string of bytes can be shared by any number of entries
        raise InputError(f"holds ternary weights of {size:,} bytes as float32, more than {limit:,}", hint=HINT)
    found = Ternary({}, {}, [])
    for name, array in values.items():
        if name not in packed:
            found.stored[name] = array
            found.tensors[name] = array.astype(np.float32) if array.dtype == np.float16 else array
            continue
        levels = _levels(name, packed[name])
        found.tensors[name] = _weights(levels, packed[name])
        once = np.ascontiguousarray(levels[:, : packed[name].columns])
        if once.size < levels.size and np.array_equal(levels, np.tile(once, levels.shape[1] // once.shape[1])):
            levels = once
            found.repeated.append(name)
        found.stored[name] = QuantizedTensor(levels, array)
    return found


class _Packed(NamedTuple):
    """An entry whose sizes agree: rows of `padded` levels, in groups, of which the first `columns` are weights."""

    bits: bytes
    scales: np.ndarray
    rows: int
    columns: int
    padded: int
    group: int
    shape: list[int]


def _checked(name: str, entry: Mapping[str, Any], scales: np.ndarray) -> _Packed:
    """Nothing is allocated here.  Raises: InputError."""
    where, bits = f"tensor `{name}`", entry.get("packed")
    matrix, shape = (each if isinstance(each := entry.get(key), list) else [] for key in ("shape", "orig_shape"))
    numbers: list[Any] = [entry.get(key) for key in ("n_trits", "padded_cols", "group_size")]
    known = all(isinstance(side, int) and side > 0 for side in (*matrix, *shape, *numbers))
    if not isinstance(bits, bytes) or len(matrix) != 2 or not known:
        raise InputError("lacks packed levels, or has sizes that are no positive integers", where=where, hint=HINT)
    if entry.get("turbo") is not True or entry.get("scale_mult", 1.0) != 1.0:
        raise InputError("is not rotated, or has a factor on its scales", where=where, hint=HINT)
    (rows, columns), (count, padded, group) = matrix, numbers
    fits = 0 <= padded - columns < group and padded % group == 0 and count == rows * padded
    if not fits or group & (group - 1) or math.prod(shape) != rows * columns:
        raise InputError(
            f"of shape {matrix} ({shape}) does not fit {count} levels in rows of {padded} and groups of {group}",
            where=where,
            hint="damaged?",
        )
    if scales.dtype != np.float16 or scales.shape != (count // group,) or len(bits) < (count + 7) // 8:
        raise InputError(
            f"has scales {scales.dtype} {scales.shape} and {len(bits)} bytes of levels, "
            f"float16 {(count // group,)} and at least {(count + 7) // 8} are needed",
            where=where,
            hint="damaged?",
        )
    return _Packed(bits, scales, rows, columns, padded, group, shape)


def _levels(name: str, packed: _Packed) -> np.ndarray:
    """int8 (groups, weights): the mask's bits, then as many sign bits as the mask has ones; 1 is positive."""
    count, data = packed.rows * packed.padded, np.frombuffer(packed.bits, np.uint8)
    mask_bytes = (count + 7) // 8
    nonzero = np.unpackbits(data[:mask_bytes], count=count).astype(bool)
    signs = int(np.count_nonzero(nonzero))
    if len(data) != mask_bytes + (signs + 7) // 8:
        raise InputError(
            f"has {len(data)} bytes of levels, {signs} nonzero ones of {count} need {mask_bytes + (signs + 7) // 8}",
            where=f"tensor `{name}`",
            hint="damaged?",
        )
    levels = np.zeros(count, np.int8)
    levels[nonzero] = 2 * np.unpackbits(data[mask_bytes:], count=signs).astype(np.int8) - 1
    return levels.reshape(-1, packed.group)


def _weights(levels: np.ndarray, packed: _Packed) -> np.ndarray:
    """float32: groups turned back, times their scale, padding cut off; one rounding of the exact product."""
    with np.errstate(invalid="ignore"):  # a damaged scale may be infinite
        turned = _hadamard(levels) * packed.scales.astype(np.float64)[:, None] / math.sqrt(packed.group)
    rows = turned.astype(np.float32).reshape(packed.rows, packed.padded)
    return np.ascontiguousarray(rows[:, : packed.columns]).reshape(packed.shape)


def _hadamard(rows: np.ndarray) -> np.ndarray:
    """int32, same shape: each row times the Sylvester Hadamard matrix of its length, a power of two; exact."""
    turned, half = rows.astype(np.int32), 1
    while half < rows.shape[1]:
        pairs = turned.reshape(len(rows), -1, 2, half)
        turned = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], 2).reshape(rows.shape)
        half *= 2
    return turned
