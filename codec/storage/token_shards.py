"""Token shards: 256 little-endian int32 (20240520, 1, count, zeros), then count little-endian uint16 ids.

Source: the challenge's data format; every tool of the field reads it.
"""

from pathlib import Path

import numpy as np

from codec.errors import InputError

MAGIC, VERSION, HEADER_BYTES = 20240520, 1, 1024


def shard_bytes(tokens: np.ndarray) -> bytes:
    """tokens: integers (count,) in 0..65535 -> the shard file's content."""
    header = np.zeros(256, "<i4")
    header[:3] = MAGIC, VERSION, len(tokens)
    return header.tobytes() + np.ascontiguousarray(tokens, "<u2").tobytes()


def open_shard(path: str | Path) -> np.ndarray:
    """The shard's ids, uint16 (count,), memory-mapped read-only.

    Raises: InputError for a missing file, a wrong magic or version, a body that is not `count` ids.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such token shard", where=str(path), hint="make shards with `pgolf data`")
    file_bytes = path.stat().st_size
    if file_bytes < HEADER_BYTES:
        raise InputError(
            f"has {file_bytes} bytes, a token shard starts with a header of {HEADER_BYTES}",
            where=str(path),
            hint="write the shard again with `pgolf data`",
        )
    magic, version, count = (int(v) for v in np.fromfile(path, "<i4", 3))
    if (magic, version) != (MAGIC, VERSION):
        raise InputError(
            f"has magic {magic} version {version}, a token shard has {MAGIC} version {VERSION}",
            where=str(path),
            hint="this is not a token shard; make one with `pgolf data`",
        )
    if count < 0 or file_bytes != HEADER_BYTES + 2 * count:
        raise InputError(
            f"has {file_bytes} bytes, its header of {count} tokens needs {HEADER_BYTES + 2 * max(count, 0)}",
            where=str(path),
            hint="the file is cut or damaged",
        )
    if count == 0:
        return np.zeros(0, np.uint16)
    return np.memmap(path, "<u2", "r", HEADER_BYTES, (count,))


def find_shards(folder: str | Path, split: str) -> list[Path]:
    """The `*_train_*.bin` or `*_val_*.bin` files of a data folder, sorted by name; `*_bytes_*` sidecars are not shards.

    Raises: InputError when the folder is missing or holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such data folder", where=str(folder), hint="make one with `pgolf data`")
    found = sorted(p for p in folder.glob(f"*_{split}_*.bin") if "_bytes_" not in p.name)
    if not found:
        raise InputError(f"holds no *_{split}_*.bin shard", where=str(folder), hint="make one with `pgolf data`")
    return found


def find_tokenizer(folder: str | Path) -> Path:
    """The one `*.model` file of a data folder.

    Raises: InputError when there is none or more than one.
    """
    if not Path(folder).is_dir():
        raise InputError("no such data folder", where=str(folder), hint="make one with `pgolf data`")
    found = sorted(Path(folder).glob("*.model"))
    if len(found) != 1:
        raise InputError(
            f"holds {len(found)} tokenizers (*.model), exactly one is needed",
            where=str(folder),
            hint="pass --tokenizer FILE",
        )
    return found[0]
