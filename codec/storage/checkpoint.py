"""Float checkpoints: a safetensors file whose metadata holds the model config as JSON."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes, write_bytes

NOTES = "pgolf"
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def read_checkpoint(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors by name, metadata).  bfloat16 comes back as float32, everything else as stored.

    Raises: InputError for a missing or empty file, one that is not safetensors, or a dtype we do not know.
    """
    data = read_bytes(path)
    try:
        records = deserialize(data)  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise InputError(
            f"is not a safetensors checkpoint ({error})",
            where=str(path),
            hint="save it with safetensors, or convert it first",
        ) from None
    tensors = {name: _array(name, record, path) for name, record in records}
    if not tensors:
        raise InputError("holds no tensors", where=str(path))
    notes = header.get("__metadata__") or {}
    return tensors, {**notes, **_parsed(notes.get(NOTES, "{}"), path)}


def write_checkpoint(path: str | Path, tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Write atomically; equal input gives equal bytes.

    0-d arrays keep their shape (np.ascontiguousarray would make them vectors).  All metadata goes into one JSON
    value: safetensors keeps several keys in a hash map of random order.
    """
    ordered = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    write_bytes(path, save(ordered, {NOTES: json.dumps(metadata, sort_keys=True)}))


def weights_sha256(tensors: Mapping[str, np.ndarray]) -> str:
    """Over names, dtypes, shapes and values in order of the names; not over metadata, which holds the time taken."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], order="C")
        digest.update(f"{name}\0{tensor.dtype.str}{tensor.shape}".encode() + tensor.tobytes())
    return digest.hexdigest()


def _array(name: str, record: dict[str, Any], path: str | Path) -> np.ndarray:
    shape, dtype = record["shape"], record["dtype"]
    if dtype == "BF16":
        high_halves = np.frombuffer(record["data"], "<u2").astype("<u4")
        return (high_halves << 16).view("<f4").reshape(shape)
    if dtype not in DTYPES:
        raise InputError(
            f"tensor `{name}` has dtype {dtype}, which is not supported",
            where=str(path),
            hint=f"store it as one of {', '.join(sorted(DTYPES))}, BF16",
        )
    return np.frombuffer(record["data"], DTYPES[dtype]).reshape(shape)


def _parsed(text: str, path: str | Path) -> dict[str, Any]:
    try:
        notes = json.loads(text)
    except ValueError:
        notes = None
    if not isinstance(notes, dict):
        raise InputError(f"has a metadata value `{NOTES}` that is not a JSON object", where=str(path))
    return notes
