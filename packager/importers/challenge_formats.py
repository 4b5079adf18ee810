"""The quantized forms of the challenge's .ptz files."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError
from packager.importers.imported import FORMS, STORED, Imported, check_finite, listed
from packager.importers.torch_file import arrays

INT8_CLEAN = "int8_clean_per_row_v1"


def read_int8_clean(content: Mapping[Any, Any], limit: int) -> Imported:
    """Source: openai/parameter-golf, the baseline's train_gpt.py."""
    if content["__quant_format__"] != INT8_CLEAN:
        raise InputError(f"has the unknown format `{content['__quant_format__']!s:.80}`", hint=FORMS)
    levels, scales, plain = (_only_tensors(content, key, limit) for key in ("quantized", "scales", "passthrough"))
    dtypes, qmeta = (content.get(key) or {} for key in ("dtypes", "qmeta"))
    if not isinstance(dtypes, Mapping) or not isinstance(qmeta, Mapping) or levels.keys() != scales.keys():
        raise InputError(f"{len(levels)} tensors of levels and {len(scales)} of scales do not pair", hint="damaged?")
    other = [name for name, each in qmeta.items() if each not in ({"scheme": "per_row", "axis": 0}, {})]
    if other:
        raise InputError(f"has an unknown scheme {qmeta[other[0]]!s:.80}", where=f"tensor `{other[0]}`", hint=FORMS)
    pairs = {name: (levels[name], scales[name]) for name in levels}
    return _dequantized(pairs, plain, {name: str(dtypes.get(name, "float32")) for name in levels}, INT8_CLEAN)


def read_labelled(content: Mapping[Any, Any], limit: int) -> Imported:
    """Source: openai/parameter-golf pull requests 162, 339, 1176 (NAME.q, NAME.scale) and 1716 (NAME.q_pt)."""
    stored, pairs, plain = _only_tensors(content, "w", limit), {}, {}
    for name, label in content["m"].items():
        if "+" in str(label):
            raise InputError(
                f"is labelled `{label!s:.80}`, which is more than levels times a scale", where=f"tensor `{name}`"
            )
        for suffix in ("", "_pt"):
            if f"{name}.q{suffix}" in stored and f"{name}.scale{suffix}" in stored:
                pairs[name] = stored.pop(f"{name}.q{suffix}"), stored.pop(f"{name}.scale{suffix}")
                break
        else:
            if name not in stored:
                raise InputError(f"is labelled `{label!s:.80}`, but has no data", where=f"tensor `{name}`")
            plain[name] = stored.pop(name)
    if stored:
        raise InputError(f"holds tensors without a label: {listed(list(stored))}", hint=FORMS)
    return _dequantized(pairs, plain, {}, "levels and scales")


def _only_tensors(content: Mapping[Any, Any], key: str, limit: int) -> dict[str, np.ndarray]:
    inner = content.get(key)
    if not isinstance(inner, Mapping):
        raise InputError(f"has a {type(inner).__name__} as `{key}`, not a dictionary of tensors")
    tensors, others = arrays(inner, limit)
    if others:
        raise InputError(f"has entries in `{key}` that are not tensors: {listed(others)}")
    return tensors


def _dequantized(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]], plain: dict[str, np.ndarray], dtypes: dict[str, str], kind: str
) -> Imported:
    """pairs: (levels, scales) by name.  dtypes: what the original rounds the products to, float32 where absent."""
    if pairs.keys() & plain.keys() or not (pairs or plain):
        raise InputError("holds no tensors" if not pairs else f"holds `{min(pairs.keys() & plain.keys())}` twice")
    stored: dict[str, QuantizedTensor | np.ndarray] = dict(plain)
    tensors = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in plain.items()}
    for name, (levels, scales) in pairs.items():
        try:
            stored[name], product = _product(levels, scales)
            tensors[name] = _rounded(product, dtypes.get(name, "float32"))
        except InputError as error:
            raise InputError(error.message, where=f"tensor `{name}`", hint=error.hint) from None
    check_finite(tensors)
    floats = [name for name in pairs if isinstance(stored[name], np.ndarray)]
    rounded = [name for name in pairs if dtypes.get(name, "float32") != "float32"]
    notes = []
    if floats:
        notes.append(f"scales that float16 does not hold, so these weights are kept as float32: {listed(floats)}")
    if rounded:
        dtype = dtypes[rounded[0]]
        notes.append(f"recipe `{STORED}` leaves out the original's last rounding to {dtype}: {listed(rounded)}")
    return Imported(tensors=tensors, stored=stored, metadata={}, kind=kind, notes=tuple(notes))


def _product(levels: np.ndarray, scales: np.ndarray) -> tuple[QuantizedTensor | np.ndarray, np.ndarray]:
    """(levels and scales in a form that holds them exactly, else their product; the product, float32)."""
    if levels.dtype != np.int8 or scales.dtype.kind != "f":
        raise InputError(f"has {levels.dtype} levels with {scales.dtype} scales, int8 with floats are read", hint=FORMS)
    by_row = levels.ndim > 0 and scales.ndim > 0 and scales.size == scales.shape[0] == levels.shape[0]
    if not by_row and scales.size != 1:
        raise InputError(f"has scales of shape {scales.shape} for levels of shape {levels.shape}", hint=FORMS)
    flat = scales.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name later
        product = QuantizedTensor(levels, flat.astype(np.float32)).dequantize()
        for exact in (flat.astype(np.float16) if by_row else flat.astype(np.float32), flat.astype(np.float32)):
            if np.array_equal(exact, flat) and (exact.dtype == np.float16 or flat.size == 1):
                return QuantizedTensor(levels, exact), product
    return product, product


def _rounded(weights: np.ndarray, dtype: str) -> np.ndarray:
    """float32 through the named dtype and back, ties to even."""
    if dtype in ("float32", "float64"):
        return weights
    if dtype == "float16":
        return weights.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = weights.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    raise InputError(f"was of dtype `{dtype:.80}`, float16, bfloat16, float32 and float64 are read", hint=FORMS)
