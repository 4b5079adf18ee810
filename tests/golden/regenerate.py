"""Write tests/golden/pga1/*: run by hand when, and only when, the format gets a new version or a new kind of form.

Files that are there already must come out as they were.

python -m tests.golden.regenerate
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from codec import QuantizedTensor, encode, unpack

FOLDER = Path(__file__).parent / "pga1"


def tensors() -> dict:
    """Levels, repeats, ties, plain dtypes and odd shapes, from a generator whose stream numpy guarantees."""
    random = np.random.Generator(np.random.PCG64(7))

    def levels(rows: int, columns: int, spread: float, top: int) -> np.ndarray:
        wide = random.integers(-1000, 1001, (rows, columns, 4)).sum(2) / 1000  # no normal(): its stream may change
        return np.rint(wide * spread).clip(-top - 1, top).astype(np.int8)

    embedding = levels(120, 40, 30, 127)
    embedding[5:25] = np.clip(embedding[5].astype(int) + random.integers(-1, 2, (20, 40)), -128, 127)
    scales = (random.integers(1, 1000, 120) / 4096).astype(np.float16)
    return {
        "tok_emb.weight": QuantizedTensor(embedding, scales),
        "lm_head.weight": QuantizedTensor(embedding, scales),
        "blocks.0.attn.c_q.weight": QuantizedTensor(levels(64, 48, 9, 31), scales[:64]),
        "blocks.1.attn.c_q.weight": QuantizedTensor(levels(64, 48, 3, 31) * (np.arange(48) % 3 > 0), scales[:64]),
        "blocks.0.resid_mix": QuantizedTensor(levels(2, 48, 50, 127), np.array([0.0078125], np.float32)),
        "norm": np.linspace(-1, 1, 33, dtype=np.float16),
        "bias": np.arange(7, dtype=np.float32) / 8,
        "steps": np.array(12, np.int64),
        "mask": np.array([[True], [False]]),
        "empty": np.zeros((0, 3), np.float32),
        "имя": np.float64(0.1) * np.ones(2),
    }


def grouped() -> dict:
    """Levels on a lattice of its own for every 64 columns, so that segments get classes."""
    random = np.random.Generator(np.random.PCG64(8))
    steps = random.integers(2, 6, (64, 4, 1))
    levels = (random.integers(-5, 6, (64, 4, 64)) * steps).astype(np.int8).reshape(64, 256)
    return {"mlp.fc.weight": QuantizedTensor(levels, (random.integers(1, 1000, 64) / 4096).astype(np.float16))}


def column_steps() -> dict:
    """Row scales times column steps: own ones, shared ones, and two vectors of one length in turn."""
    random = np.random.Generator(np.random.PCG64(9))
    first, second = random.integers(0, 10, (2, 2, 192)).sum(1).astype(np.uint8)  # as low as this a table pays for them
    wide = np.arange(256, dtype=np.uint8)

    def tensor(steps: np.ndarray) -> QuantizedTensor:
        levels = random.integers(-12, 13, (8, len(steps), 2)).sum(2).astype(np.int8)
        return QuantizedTensor(levels, (random.integers(1, 1000, 8) / 4096).astype(np.float16), steps)

    return {
        "attn.c_k.weight": tensor(first),
        "attn.c_q.weight": tensor(first),
        "attn.c_v.weight": tensor(first),
        "attn.proj.weight": tensor(second),
        "mlp.fc.weight": tensor(first),
        "mlp.proj.weight": tensor(wide),
        "norm": np.ones(96, np.float16),
    }


GOLDEN = {"mixed": tensors, "grouped": grouped, "column_steps": column_steps}
META = {"config": {"width": 48}, "recipe": "golden"}


def digests(blob: bytes) -> dict[str, str]:
    """sha256 of every tensor: dtype, shape and bytes of what the artifact holds."""
    found = {}
    for name, tensor in unpack(blob)[1].items():
        digest = hashlib.sha256()
        for array in tensor if isinstance(tensor, QuantizedTensor) else (tensor,):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        found[name] = digest.hexdigest()
    return found


if __name__ == "__main__":
    for name, made in GOLDEN.items():
        artifact = encode(made(), META)
        (FOLDER / f"{name}.bin").write_bytes(artifact)
        (FOLDER / f"{name}.json").write_text(json.dumps(digests(artifact), indent=1, ensure_ascii=False) + "\n")
