"""Checkpoints of llama2.c: the real one tells its story, and headers that lie are refused before anything is read."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import InputError, UsageError
from packager.importers.read_any import read_any

HEADER = struct.Struct("<7i")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("llama2c") / "model.bin"


def read(path, content: bytes):
    path.write_bytes(content)
    return read_any(path)


def values_after(sizes) -> int:
    """How many float32 follow the header, from the widths of the matrices between which a token passes."""
    dim, hidden, layers, heads, kv_heads, vocab, context = sizes
    head = dim // heads
    per_layer = 2 * dim + 2 * dim * dim + 2 * dim * head * kv_heads + 3 * dim * hidden
    return abs(vocab) * dim * (1 if vocab > 0 else 2) + layers * per_layer + dim + context * head


# ---- the real file


@pytest.fixture(scope="module")
def stories(shared):
    return read_any(shared / "data/weights/stories260K/stories260K.bin")


def test_the_real_file_has_the_sizes_that_are_published(stories):
    assert sum(array.size for array in stories.tensors.values()) == 260_032
    assert stories.metadata["sizes"] == {
        "dim": 64,
        "hidden_dim": 172,
        "n_layers": 5,
        "n_heads": 8,
        "n_kv_heads": 4,
        "vocab_size": 512,
        "max_seq_len": 512,
    }
    assert (stories.kind, len(stories.tensors), stories.stored) == ("llama2.c", 2 + 5 * 9, None)
    assert any("4,096 values of rotary tables" in note for note in stories.notes)
    with pytest.raises(UsageError, match="float checkpoint"):
        stories.levels()


def test_the_real_model_tells_its_story(stories, shared):
    """Every matrix in its place: the greedy text of llama2.c itself."""
    pieces, data = [], (shared / "data/weights/stories260K/tok512.bin").read_bytes()
    at = 4
    while at < len(data):
        length = struct.unpack_from("<i", data, at + 4)[0]
        pieces.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    ids = [1]
    for _ in range(40):
        ids.append(int(next_logits(stories.tensors, ids).argmax()))
    text = b"".join(pieces[each] for each in ids[1:]).decode().strip()
    assert text.startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    )


def next_logits(weights, ids, heads=8, kv_heads=4):
    """Llama's forward pass for the last of the ids, float64."""

    def norm(x, gain):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain

    def rotated(x):
        half = np.arange(x.shape[-1] // 2)
        angles = np.arange(len(ids))[:, None, None] * 10000.0 ** (-half / len(half))
        even, odd = x[..., ::2], x[..., 1::2]
        turned = (even * np.cos(angles) - odd * np.sin(angles), even * np.sin(angles) + odd * np.cos(angles))
        return np.stack(turned, -1).reshape(x.shape)

    x = weights["tok_embeddings.weight"].astype(np.float64)[ids]
    for layer in range(5):
        part = {name.split(".", 2)[2]: each for name, each in weights.items() if name.startswith(f"layers.{layer}.")}
        y = norm(x, part["attention_norm.weight"])
        q, k, v = (y @ part[f"attention.w{each}.weight"].T for each in "qkv")
        q = rotated(q.reshape(len(ids), heads, -1))
        k = np.repeat(rotated(k.reshape(len(ids), kv_heads, -1)), heads // kv_heads, 1)
        v = np.repeat(v.reshape(len(ids), kv_heads, -1), heads // kv_heads, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1]) - 1e9 * np.triu(np.ones((len(ids),) * 2), 1)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", shares, v).reshape(x.shape) @ part["attention.wo.weight"].T
        y = norm(x, part["ffn_norm.weight"])
        gate, up = (y @ part[f"feed_forward.w{each}.weight"].T for each in (1, 3))
        x = x + gate / (1 + np.exp(-gate)) * up @ part["feed_forward.w2.weight"].T
    return norm(x[-1], weights["norm.weight"]) @ weights["tok_embeddings.weight"].T


# ---- any file


@st.composite
def headers(draw):
    kv_heads, repeats, half = (draw(st.integers(1, 3)) for _ in range(3))
    hidden, layers, vocab, context = (draw(st.integers(1, 6)) for _ in range(4))
    heads = kv_heads * repeats
    return 2 * half * heads, hidden, layers, heads, kv_heads, draw(st.sampled_from((-1, 1))) * vocab, context


@given(headers())
def test_every_value_but_the_rotary_ones_is_read_once(path, sizes):
    dim, hidden, layers, heads, kv_heads, vocab, context = sizes
    count = values_after(sizes)
    imported = read(path, HEADER.pack(*sizes) + np.arange(count, dtype="<f4").tobytes())
    seen = np.sort(np.concatenate([array.ravel() for array in imported.tensors.values()]))
    tail = dim * abs(vocab) if vocab < 0 else 0  # the output matrix is the file's end
    rotary = np.arange(count - tail - context * (dim // heads), count - tail)
    assert np.array_equal(seen, np.setdiff1d(np.arange(count), rotary))
    assert ("output.weight" in imported.tensors) == (vocab < 0)
    assert any("tied" in note for note in imported.notes) == (vocab > 0)
    assert imported.metadata["sizes"]["vocab_size"] == abs(vocab)
    kv_dim = dim // heads * kv_heads
    for layer in range(layers):
        shapes = {
            "attention.wq": (dim, dim),
            "attention.wk": (kv_dim, dim),
            "attention.wv": (kv_dim, dim),
            "attention.wo": (dim, dim),
            "feed_forward.w1": (hidden, dim),
            "feed_forward.w2": (dim, hidden),
            "feed_forward.w3": (hidden, dim),
            "attention_norm": (dim,),
            "ffn_norm": (dim,),
        }
        assert {name: imported.tensors[f"layers.{layer}.{name}.weight"].shape for name in shapes} == shapes


GOOD = (64, 172, 5, 8, 4, 512, 512)


@pytest.mark.parametrize(
    ("position", "value", "reason"),
    [
        *[(position, value, "impossible sizes") for position, value in [(0, 65), (0, 24), (3, 7), (4, 3)]],
        *[(position, -GOOD[position], "impossible sizes") for position in (0, 1, 2, 3, 4, 6)],
        *[(position, 1 << 20, "needs") for position in (0, 1, 2, 5, 6)],
        (5, -512, "needs"),
        (1, 171, "needs"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(path, position, value, reason):
    sizes = [*GOOD]
    sizes[position] = value
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"model\.bin: has .*llama2\.c header") as error:
            read(path, HEADER.pack(*sizes) + bytes(4 * 1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [-4, -1, 1, 4])
def test_a_cut_or_longer_file_is_refused_with_both_sizes(path, change):
    content = HEADER.pack(*GOOD) + bytes(4 * values_after(GOOD))
    assert len(content) == 1_056_540  # the real file's
    with pytest.raises(InputError, match=f"has {len(content) + change:,} bytes, .* needs 1,056,540"):
        read(path, (content + bytes(4))[: len(content) + change])


@pytest.mark.parametrize("sizes", [(0, 172, 5, 8, 4, 512, 512), (64, 172, 5, 8, 4, 512, 1 << 21)])
def test_what_is_no_such_header_is_not_taken_for_one(path, sizes):
    with pytest.raises(InputError, match=r"not a safetensors or llama2\.c checkpoint"):
        read(path, HEADER.pack(*sizes) + bytes(100))
