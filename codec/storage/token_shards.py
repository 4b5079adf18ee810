"""Token shards: 256 little-endian int32 (20240520, 1, count, zeros), then count little-endian uint16 ids.

A shard of validation text that went through a reversible transform (CaseOps) has a sidecar of the same form beside it:
for `x_val_000000.bin` it is `x_val_bytes_000000.bin`, and states how many bytes of the text each token stands for.

Source: the challenge's data format; every tool of the field reads it.
"""

from collections.abc import Sequence
from itertools import combinations
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

    Raises: InputError when the folder is missing or holds none, or two of them begin alike: see `refuse_copies`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such data folder", where=str(folder), hint="make one with `pgolf data`")
    files = sorted(folder.glob(f"*_{split}_*.bin"))
    found = [path for path in files if "_bytes_" not in path.name]
    if not found:
        raise InputError(f"holds no *_{split}_*.bin shard", where=str(folder), hint="make one with `pgolf data`")
    if lost := set(files).difference(found, map(_sidecar, found)):
        raise InputError("is a sidecar without its shard", where=str(min(lost)), hint="keep the shard beside it")
    refuse_copies(found)
    return found


def refuse_copies(shards: Sequence[Path]) -> None:
    """Raises: InputError when all tokens of a shard are also the first ones of another: its text would count twice."""
    opened = [open_shard(path) for path in shards]
    for (first, a), (second, b) in combinations(zip(shards, opened, strict=True), 2):
        # Whole shards of 100 M tokens are compared only where their first 1,000 agree.
        if all(n and np.array_equal(a[:n], b[:n]) for n in (min(1000, len(a), len(b)), min(len(a), len(b)))):
            raise InputError(
                f"holds the same {min(len(a), len(b))} tokens as {first.name}",
                where=str(second),
                hint="keep one of them",
            )


def stated_bytes(shards: Sequence[str | Path]) -> np.ndarray | None:
    """Bytes of each token of the shards, one after the other, uint16 (n,), as their sidecars state; None without any.

    Raises: InputError for a damaged sidecar, one of another length than its shard, or shards of which some have none.
    """
    paths = [Path(shard) for shard in shards]
    if not any(_sidecar(path).is_file() for path in paths):
        return None
    counts = []
    for path in paths:
        tokens, sidecar = len(open_shard(path)), _sidecar(path)
        stated = open_shard(sidecar) if sidecar.is_file() else ()
        if len(stated) != tokens:
            raise InputError(
                f"states the bytes of {len(stated)} tokens, {path.name} has {tokens}",
                where=str(sidecar),
                hint="use shards and sidecars of one export",
            )
        counts.append(stated)
    return np.concatenate(counts)


def _sidecar(shard: Path) -> Path:
    head, _, number = shard.name.rpartition("_val_")
    return shard.with_name(f"{head}_val_bytes_{number}")


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
