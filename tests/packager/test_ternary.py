"""Rotated ternary files: the real one, drawn ones packed here with torch, and damaged entries."""

import io
import lzma
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import QuantizedTensor, decode, encode, unpack
from codec.errors import InputError, UsageError
from packager.importers.read_any import read_any
from packager.submission import PackOptions, plan_submission

REAL = "data/weights/pg_other/pr_skc8L256_final_model.ternary.ptz"


def hadamard(size: int) -> torch.Tensor:
    """Normalized; entry (i, j) is negative where i and j share an odd number of one bits."""
    signs = [[1 - 2 * ((i & j).bit_count() & 1) for j in range(size)] for i in range(size)]
    return torch.tensor(signs, dtype=torch.float64) / math.sqrt(size)


def packed(weights: torch.Tensor, group: int) -> dict:
    """An entry as the original exports it: pad, rotate, scale by the mean magnitude, round, mask and signs."""
    matrix = weights.reshape(len(weights), -1).double()
    padded = torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % group))
    turned = padded.reshape(-1, group) @ hadamard(group)
    scales = turned.abs().mean(1).clamp(min=1e-4).half()
    levels = (turned / scales.double()[:, None]).round().clamp(-1, 1).numpy().ravel()
    return {
        "type": "ternary_bitmask",
        "packed": np.packbits(levels != 0).tobytes() + np.packbits(levels[levels != 0] > 0).tobytes(),
        "scale": scales,
        "shape": list(matrix.shape),
        "padded_cols": padded.shape[1],
        "group_size": group,
        "n_trits": levels.size,
        "orig_shape": list(weights.shape),
        "threshold": 0.5,
        "scale_mult": 1.0,
        "turbo": True,
    }


def unpacked(entry: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """(levels by group, weights turned back with their padding), float64."""
    bits = np.unpackbits(np.frombuffer(entry["packed"], np.uint8))
    mask = bits[: entry["n_trits"]] == 1
    levels = np.zeros(entry["n_trits"])
    levels[mask] = np.where(bits[-(-entry["n_trits"] // 8) * 8 :][: mask.sum()], 1, -1)
    groups = torch.tensor(levels).reshape(-1, entry["group_size"])
    turned = groups * entry["scale"].double()[:, None] @ hadamard(entry["group_size"])
    return groups, turned.reshape(-1, entry["padded_cols"])


def write(path, content) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(lzma.compress(buffer.getvalue(), preset=1))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("ternary") / "model.ternary.ptz"


def read(path, content):
    write(path, content)
    return read_any(path)


def agrees(imported, name: str, entry: dict) -> None:
    """Weights as torch turns them back; levels and scales as the file has them, one period of those that repeat."""
    groups, turned = unpacked(entry)
    weights = turned[:, : entry["shape"][1]].reshape(entry["orig_shape"])
    assert torch.allclose(torch.tensor(imported.tensors[name]).double(), weights, rtol=1e-6, atol=1e-9)
    stored = imported.stored[name]
    levels = np.tile(stored.levels, (1, groups.shape[1] // stored.levels.shape[1]))
    assert np.array_equal(levels, groups.numpy())
    assert stored.scales.tobytes() == entry["scale"].numpy().tobytes()


def test_the_real_file(shared):
    original = torch.load(io.BytesIO(lzma.decompress((shared / REAL).read_bytes())), weights_only=True)
    imported = read_any(shared / REAL)
    assert imported.kind == "ternary in xz"
    ternary = {name: entry for name, entry in original.items() if entry["type"] == "ternary_bitmask"}
    assert (len(original), len(ternary)) == (101, 28)
    padded = 0
    for name, entry in original.items():
        if name not in ternary:
            assert np.array_equal(imported.stored[name], entry["data"].numpy())
            assert np.array_equal(imported.tensors[name], entry["data"].float().numpy())
            continue
        agrees(imported, name, entry)
        # Only the right rotation turns the padding of trained weights back to nothing.
        beyond = unpacked(entry)[1][:, entry["shape"][1] :]
        padded += beyond.numel() > 0
        assert not beyond.numel() or beyond.abs().max() < 1e-15
    assert padded == 8
    held = sum(
        each.levels.size if isinstance(each, QuantizedTensor) else each.size for each in imported.stored.values()
    )
    assert held == sum(array.size for array in imported.tensors.values()) == 3_547_976
    part = {name: imported.stored[name] for name in [*ternary][:7]}
    for name, tensor in unpack(encode(part, {}))[1].items():
        assert np.array_equal(tensor.levels, part[name].levels)
        assert np.array_equal(tensor.scales, part[name].scales)


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(1, 12), min_size=2, max_size=3),
    group=st.sampled_from((1, 2, 4, 8, 16)),
    seed=st.integers(0, 2**32 - 1),
)
def test_drawn_files(path, shape, group, seed):
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    entry, gain = packed(weights, group), torch.ones(3, dtype=torch.float16)
    imported = read(path, {"a.weight": entry, "gain": {"type": "fp16", "data": gain}})
    agrees(imported, "a.weight", entry)
    assert np.array_equal(imported.stored["gain"], gain.numpy())
    assert imported.tensors["gain"].dtype == np.float32
    repeated = imported.stored["a.weight"].levels.size < entry["n_trits"]
    assert any("padding repeats" in note for note in imported.notes) == repeated
    assert len(imported.levels()) == 2
    with pytest.raises(UsageError, match="cannot be packed"):
        imported.decodable_levels()


def test_its_weights_can_be_packed_anew_but_not_its_levels(path, tmp_path):
    write(path, {"blocks.0.mlp.fc.weight": packed(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)), 16)})
    (tmp_path / "mine.py").write_text("from codec.decoder import decode\nprint('my own script')\n")
    with pytest.raises(UsageError, match="levels are of rotated weights"):
        plan_submission(PackOptions(checkpoint=path, recipe="stored", script=tmp_path / "mine.py"))
    planned = plan_submission(PackOptions(checkpoint=path, recipe="pr162-small", script=tmp_path / "mine.py"))
    weights = read_any(path).tensors["blocks.0.mlp.fc.weight"]
    error = decode(planned.files["model.bin"])["blocks.0.mlp.fc.weight"] - weights
    assert np.square(error).mean() < 1e-3 * np.square(weights).mean()


ENTRY = packed(torch.randn(6, 10, generator=torch.Generator().manual_seed(0)), 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packed": None}, "lacks packed levels"),
        ({"packed": ENTRY["packed"][:11]}, "11 bytes of levels"),
        ({"packed": ENTRY["packed"][:-1]}, "nonzero ones of 96"),
        ({"packed": ENTRY["packed"] + b"\0"}, "nonzero ones of 96"),
        ({"scale": None}, "no tensor of scales"),
        ({"scale": ENTRY["scale"][:-1]}, "scales float16 (11,)"),
        ({"scale": ENTRY["scale"].float()}, "scales float32"),
        ({"scale": ENTRY["scale"] * torch.inf}, "not finite"),
        ({"scale_mult": 1.5}, "factor on its scales"),
        ({"turbo": False}, "is not rotated"),
        ({"turbo": None}, "is not rotated"),
        ({"group_size": 3}, "groups of 3"),
        ({"group_size": 0}, "no positive integers"),
        ({"group_size": 12, "padded_cols": 12, "n_trits": 72}, "groups of 12"),
        ({"padded_cols": 24}, "rows of 24"),
        ({"padded_cols": 8}, "rows of 8"),
        ({"n_trits": 95}, "does not fit 95 levels"),
        ({"n_trits": 1 << 60}, "does not fit"),
        ({"n_trits": 96.0}, "no positive integers"),
        ({"shape": [6]}, "lacks packed levels"),
        ({"shape": [-6, -10]}, "no positive integers"),
        ({"shape": None}, "lacks packed levels"),
        ({"orig_shape": [6, 9]}, "([6, 9]) does not fit"),
        ({"orig_shape": "6, 10"}, "([]) does not fit"),
        ({"shape": [1 << 40, 10], "n_trits": 1 << 44, "orig_shape": [1 << 40, 10]}, "are needed"),
    ],
)
def test_damaged_entries_are_named_and_nothing_large_is_allocated(path, changes, message):
    write(path, {"a.weight": {**ENTRY, **changes}})
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as error:
            read_any(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert peak < 16 << 20


def test_one_string_shared_by_many_entries_is_counted_as_often_as_it_is_used(path):
    entry = packed(torch.ones(256, 256), 128)
    write(path, {f"blocks.{number}": entry for number in range(40)})
    assert len(read_any(path).tensors) == 40
    with pytest.raises(InputError, match="10,485,760 bytes as float32"):
        read_any(path, limit=10_000_000)


def test_other_types_beside_it_are_named(path):
    with pytest.raises(InputError, match=r"1 `fp4`, 1 `ternary_bitmask`"):
        read(path, {"a": ENTRY, "b": {"type": "fp4", "data": torch.ones(2)}})
