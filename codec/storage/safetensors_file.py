"""Any safetensors checkpoint, bit for bit: every dtype under its own name, shards beside their index.

numpy has no bfloat16 and no float8.  Such tensors are read as the unsigned integers of their bits, with the name of the
dtype beside them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes, within, write_bytes
from codec.storage.checkpoint import DTYPES
from codec.storage.json_file import read_json_object

BITS = {"BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}  # what numpy cannot compute with
KNOWN = {**DTYPES, **BITS}
TAGS = {np.dtype(kind).str: tag for tag, kind in DTYPES.items()}  # the name of a numpy dtype
INDEX = ".safetensors.index.json"


class Stored(NamedTuple):
    """dtype: as safetensors names it.  array: of that dtype, or of the bits where numpy lacks it (`BITS`)."""

    dtype: str
    array: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """What a recipe may quantize: bfloat16 as float32, which is exact; all else as it is."""
        if self.dtype != "BF16":
            return self.array
        widened: np.ndarray = (self.array.astype("<u4") << 16).view("<f4")
        return widened.reshape(self.array.shape)


def checkpoint_files(path: str | Path) -> list[Path]:
    """The file itself; of an index `*.safetensors.index.json` the index and its shards; of a folder what lies there.

    Raises: InputError for a folder without exactly one of them, or an index that names no files beside it.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob(f"*{INDEX}")) or sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise InputError(
                f"is a folder with {len(found)} safetensors checkpoints, need one",
                where=str(path),
                hint="name the file, or its *.safetensors.index.json",
            )
        path = found[0]
    if not path.name.endswith(INDEX):
        return [path]
    shards = read_json_object(path).get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) else set()
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise InputError("names no shards in its weight_map", where=str(path), hint="copy the index again")
    return [path, *(path.parent / name for name in sorted(names))]


def checkpoint_sha256(path: str | Path) -> str:
    """Of a file's content; of a sharded checkpoint over its index and all shards in order of their names."""
    digest = hashlib.sha256()
    for file in checkpoint_files(path):
        digest.update(read_bytes(file))
    return digest.hexdigest()


def read_stored(path: str | Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """(tensors by name, metadata) of a checkpoint as `checkpoint_files` finds it.

    Raises: InputError for what is missing, damaged, of an unknown dtype, or not what the index says.
    """
    files = checkpoint_files(path)
    tensors: dict[str, Stored] = {}
    metadata: dict[str, str] = {}
    for file in files[1:] or files:
        data = read_bytes(file)
        with within(file):
            found, notes = _read(data)
            if twice := sorted(found.keys() & tensors.keys()):
                raise InputError(f"tensor `{twice[0]}` is in an earlier shard too")
        tensors |= found
        metadata |= notes
    if len(files) > 1:
        told = read_json_object(files[0])["weight_map"].keys()
        if odd := sorted(told ^ tensors.keys()):
            raise InputError(f"index and shards do not agree about tensor `{odd[0]}`", where=str(files[0]))
    if not tensors:
        raise InputError("holds no tensors", where=str(path))
    return tensors, metadata


def write_stored(path: str | Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """One safetensors file, atomically; equal input gives equal bytes.

    By hand, as safetensors.numpy knows no bfloat16 and orders several metadata by a random hash.
    """
    ordered = sorted(tensors, key=lambda name: (-tensors[name].array.dtype.itemsize, name))  # so all are aligned
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    parts, end = [], 0
    for name in ordered:
        dtype, array = tensors[name]
        parts.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + len(parts[-1])]}
        end += len(parts[-1])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, b"".join([len(text).to_bytes(8, "little"), text, *parts]))


def _read(data: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    try:
        records = deserialize(data)  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise InputError(f"is not a safetensors checkpoint ({error})", hint="save it with safetensors") from None
    tensors = {}
    for name, record in sorted(records):
        dtype = record["dtype"]
        if dtype not in KNOWN:
            hint = f"known are {', '.join(sorted(KNOWN))}"
            raise InputError(f"tensor `{name}` has dtype {dtype}, which is not supported", hint=hint)
        tensors[name] = Stored(dtype, np.frombuffer(record["data"], KNOWN[dtype]).reshape(record["shape"]))
    return tensors, {str(key): str(value) for key, value in (header.get("__metadata__") or {}).items()}
