"""Write tests/golden/pga1/*: run by hand when, and only when, the format gets a new version or a new kind of form.

Files that are there already must come out as they were.

python -m tests.golden.regenerate
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from codec import QuantizedTensor, decode, encode, unpack
from codec.decoder import Trellis

FOLDER = Path(__file__).parent / "pga1"
MOVES = {1: (0, 0), 8: (5, 2), 64: (33, 10)}  # of a trellis, by its states


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


def trellis() -> dict:
    """1, 8 and 64 states, restarts, classes of rows, segments and columns, far levels, steps of earlier matrices."""
    random = np.random.Generator(np.random.PCG64(10))

    def tensor(shape: tuple[int, ...], columns: np.ndarray, states: int, spread: object, restart: int = 512):
        rows = shape[0] if len(shape) > 1 else 1
        wide = random.integers(-1000, 1001, (rows, len(columns), 4)).sum(2) / 1000
        rule = Trellis(*MOVES[states], restart)
        levels = walk(np.rint(wide * spread).astype(np.int64), rule).reshape(shape)
        scale = np.array([random.integers(1, 1000) / 4096], np.float32)
        return QuantizedTensor(levels, scale, columns, random.integers(110, 140, rows).astype(np.uint8), rule)

    first, second = random.integers(120, 136, (2, 192)).astype(np.uint8)
    short = first[:48].copy()
    by_row, by_column = np.exp2(np.arange(48) % 4)[:, None], np.exp2(np.arange(192) % 3)
    by_segment = np.repeat(np.exp2(random.integers(0, 5, (64, 4)) - 1.0), 64, 1)
    far = tensor((32, 192), second, 8, 2)
    halves = np.zeros((32, 192), np.int64)
    halves[::5, ::7] = random.integers(-32768, 32768, (7, 28))  # as far as levels go
    own = random.integers(-12, 13, (8, 48, 2)).sum(2).astype(np.int8)
    return {
        "a.by_row": tensor((48, 192), first, 8, by_row),
        "b.by_column": tensor((32, 192), second, 8, by_column),
        "c.earlier": tensor((64, 192), first, 64, 1.5, restart=40),
        "d.far": far._replace(levels=walk(halves, far.trellis)),
        "e.one_state": tensor((32, 192), second, 1, 2),
        "f.one_state_3d": tensor((16, 64, 3), first, 1, 0.1),
        "g.vector": tensor((48,), short, 8, 9),
        "h.of_rows": QuantizedTensor(own, (random.integers(1, 1000, 8) / 4096).astype(np.float16), short),
        "i.after": tensor((5, 48), short[::-1].copy(), 8, 3, restart=2),
        "j.after": tensor((5, 48), short, 8, 3, restart=1),
        "k.tied": far,
        "l.tied": far,
        "m.empty": tensor((4, 0), short[:0], 8, 1),
        "n.segments": tensor((64, 256), random.integers(120, 136, 256).astype(np.uint8), 8, by_segment),
    }


def walk(halves: np.ndarray, trellis: Trellis) -> np.ndarray:
    """int32 (rows, columns): levels that a trellis allows, from what is to be coded of them."""
    levels, states = np.zeros(halves.shape, np.int32), np.zeros(halves.shape[1], np.int64)
    for row, own in enumerate(halves):
        states *= row % trellis.restart > 0
        levels[row] = 2 * own + (states & 1)
        states = trellis.after(states, levels[row])
    return levels


GOLDEN = {"mixed": tensors, "grouped": grouped, "column_steps": column_steps, "trellis": trellis}
META = {"config": {"width": 48}, "recipe": "golden"}


def digests(blob: bytes) -> dict[str, str]:
    """sha256 of every tensor: dtype, shape and bytes of what the artifact holds; a trellis by its numbers."""
    found = {}
    for name, tensor in unpack(blob)[1].items():
        digest = hashlib.sha256()
        for array in tensor if isinstance(tensor, QuantizedTensor) else (tensor,):
            if isinstance(array, Trellis):
                digest.update(f"{tuple(array)}".encode())
            elif array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        found[name] = digest.hexdigest()
    return found


def decoded(blob: bytes) -> str:
    """sha256 of what `decode` gives: names, dtypes, shapes, bytes."""
    digest = hashlib.sha256()
    for name, array in decode(blob).items():
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    arrays = {}
    for name, made in GOLDEN.items():
        artifact = encode(made(), META)
        (FOLDER / f"{name}.bin").write_bytes(artifact)
        (FOLDER / f"{name}.json").write_text(json.dumps(digests(artifact), indent=1, ensure_ascii=False) + "\n")
        arrays[name] = decoded(artifact)
    (FOLDER / "decoded.json").write_text(json.dumps(arrays, indent=1) + "\n")
