"""Checkpoints of llama2.c in its first format: seven int32 sizes, then float32 weights, matrix kind by matrix kind.

Source: karpathy/llama2.c, export.py (`legacy_export`) and run.c (`memory_map_weights`).
"""

import math
import struct
from typing import NamedTuple

import numpy as np

from codec.errors import InputError

HEADER = struct.Struct("<7i")
MOST = 1 << 20  # of any size: a compressed file or a pickle that begins with seven such numbers is 2**-77 likely


class Sizes(NamedTuple):
    """The header.  vocab_size: negative when the output matrix is stored apart from the embedding."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    max_seq_len: int


def read_sizes(data: bytes) -> Sizes | None:
    """The header when the file begins like one of llama2.c, else None."""
    if len(data) < HEADER.size:
        return None
    sizes = Sizes(*HEADER.unpack_from(data))
    return sizes if all(0 < abs(size) <= MOST for size in sizes) else None


def read_weights(data: bytes, sizes: Sizes) -> tuple[dict[str, np.ndarray], int]:
    """(float32 tensors under the names of llama2.c's own state dict, rotary values left out).

    The file also carries the rotary tables, which llama2.c itself passes over: they follow from the sizes.

    Raises: InputError for sizes that contradict each other or the file's length; nothing is allocated before.
    """
    kinds = _kinds(sizes)
    needed = HEADER.size + 4 * sum(math.prod(shape) for _, shape in kinds)
    if len(data) != needed:
        raise InputError(
            f"has {len(data):,} bytes, its llama2.c header {tuple(sizes)} needs {needed:,}",
            hint="copy the file again; of llama2.c's formats the first, float32, is read",
        )
    tensors: dict[str, np.ndarray] = {}
    at, skipped = HEADER.size, 0
    for name, shape in kinds:
        values = np.frombuffer(data, "<f4", math.prod(shape), at).reshape(shape)
        at += values.nbytes
        if not name:
            skipped += values.size
        elif name.startswith("layers."):
            tensors |= {name.format(layer): matrix for layer, matrix in enumerate(values)}
        else:
            tensors[name] = values
    return tensors, skipped


def _kinds(sizes: Sizes) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) in the order of the file; `{}` in a name stands for the layer, which is the first side.

    No name: the rotary tables.  Raises: InputError.
    """
    dim, hidden, layers, heads, kv_heads, vocab, context = sizes
    if min(dim, hidden, layers, heads, kv_heads, context) < 0 or dim % (2 * heads) or heads % kv_heads:
        raise InputError(
            f"has a llama2.c header of impossible sizes {tuple(sizes)}",
            hint="dim must be a multiple of twice the heads, heads of kv_heads, and only vocab may be negative",
        )
    kv_dim = dim // heads * kv_heads
    kinds: list[tuple[str, tuple[int, ...]]] = [
        ("tok_embeddings.weight", (abs(vocab), dim)),
        ("layers.{}.attention_norm.weight", (layers, dim)),
        ("layers.{}.attention.wq.weight", (layers, dim, dim)),
        ("layers.{}.attention.wk.weight", (layers, kv_dim, dim)),
        ("layers.{}.attention.wv.weight", (layers, kv_dim, dim)),
        ("layers.{}.attention.wo.weight", (layers, dim, dim)),
        ("layers.{}.ffn_norm.weight", (layers, dim)),
        ("layers.{}.feed_forward.w1.weight", (layers, hidden, dim)),
        ("layers.{}.feed_forward.w2.weight", (layers, dim, hidden)),
        ("layers.{}.feed_forward.w3.weight", (layers, hidden, dim)),
        ("norm.weight", (dim,)),
        ("", (2, context, dim // heads // 2)),
    ]
    return kinds if vocab > 0 else [*kinds, ("output.weight", (-vocab, dim))]
