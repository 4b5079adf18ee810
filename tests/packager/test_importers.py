"""Import of what people have: real files, every container and naming, and files that mean harm.

llama2.c's format and the ternary one have tests of their own.
"""

import io
import json
import lzma
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import brotli
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import QuantizedTensor, decode, encode, unpack
from codec.errors import EnvironmentLacks, InputError, UsageError
from codec.storage.checkpoint import write_checkpoint
from packager.importers.read_any import read_any
from tests.conftest import ROOT

torch.set_num_threads(1)


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def legacy(content) -> bytes:
    return saved(content, _use_new_zipfile_serialization=False)


def shuffled(data: bytes, stride: int) -> bytes:
    return b"BSHF" + bytes([stride]) + b"".join(data[lane::stride] for lane in range(stride))


CONTAINERS = {
    "zlib": lambda data: zlib.compress(data, 9),
    "zstd": zstandard.ZstdCompressor(level=3).compress,
    "xz": lambda data: lzma.compress(data, preset=6),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "brotli": lambda data: brotli.compress(data, quality=5),
    "BSHF in brotli": lambda data: brotli.compress(shuffled(data, 2), quality=5),
    "BSHF in xz": lambda data: lzma.compress(shuffled(data, 3)),
    "BSHF": lambda data: shuffled(data, 5),
    "": bytes,
}
FLOATS = {"a.weight": torch.linspace(-1, 1, 600).reshape(20, 30), "b": torch.tensor(0.5)}


@pytest.fixture
def read(tmp_path):
    """Bytes or an object to torch.save -> what read_any makes of the file."""

    def written(content, **options):
        path = tmp_path / "file"
        path.write_bytes(content if isinstance(content, bytes) else saved(content))
        return read_any(path, **options)

    return written


def equal(one, other) -> bool:
    """Names, dtypes, shapes and every bit."""
    if one.keys() != other.keys():
        return False
    return all(_bits(one[name]) == _bits(other[name]) for name in one)


def _bits(tensor):
    """Dtype, shape and bytes of an array, or of each field of a QuantizedTensor; it may have no column steps."""
    if isinstance(tensor, QuantizedTensor):
        return [None if field is None else _bits(field) for field in tensor]
    return tensor.dtype, tensor.shape, tensor.tobytes()


# ---- real files: counts of shared/data/SOURCES.md


@pytest.mark.parametrize(
    ("name", "tensors", "quantized", "weights", "kept"),
    [
        ("pg_SamTruss/model_best_2.02_int8.ptz", 72, 43, 7_630_520, 12),
        ("pg_SamTruss/final_model_bpb2.45.int8.ptz", 72, 43, 7_630_520, 12),
        ("pg_coder2011_parcae/coder-742f4894-final_model.int8.ptz", 42, 10, 3_148_704, 42),
        (
            "pg_coder2011_parcae/coder-0a2ae449-final_model_best_recur2_seq512_mlp3_no_value_kv2_qknorm_rope16_20260425"
            ".int8.ptz",
            40,
            9,
            3_148_736,
            15,
        ),
        ("pg_small_fp32/nolanvild_3L128_final_model.int8.ptz", 32, 1, 476_812, 32),
    ],
)
def test_real_files_keep_their_levels_through_our_artifact(shared, name, tensors, quantized, weights, kept):
    """kept: how many tensors are encoded again, to stay quick."""
    imported = read_any(shared / "data/weights" / name)
    assert imported.kind == "int8_clean_per_row_v1 in zlib"
    assert len(imported.tensors) == len(imported.stored) == tensors
    assert sum(array.size for array in imported.tensors.values()) == weights
    assert sum(isinstance(each, QuantizedTensor) for each in imported.stored.values()) == quantized
    # The file itself, read without our code.
    original = torch.load(io.BytesIO(zlib.decompress((shared / "data/weights" / name).read_bytes())), weights_only=True)
    for each, levels in original["quantized"].items():
        assert np.array_equal(imported.stored[each].levels, levels.numpy())
        assert imported.stored[each].scales.tobytes() == original["scales"][each].numpy().tobytes()
        dtype = getattr(torch, original["dtypes"][each])
        exact = (levels.float() * original["scales"][each].float()[:, None]).to(dtype).float()
        assert np.array_equal(imported.tensors[each], exact.numpy())
    part = {each: imported.stored[each] for each in sorted(imported.stored)[:kept]}
    assert equal(unpack(encode(part, {}))[1], part)


def test_a_quantized_file_is_close_to_its_checkpoint(shared):
    folder = shared / "data/weights/pg_small_fp32"
    floats = read_any(folder / "nolanvild_3L128_final_model.pt")
    quantized = read_any(folder / "nolanvild_3L128_final_model.int8.ptz")
    assert (floats.stored, floats.kind, len(floats.tensors)) == (None, "state dict", 32)
    assert floats.tensors.keys() == quantized.tensors.keys()
    for name, exact in floats.tensors.items():
        error = np.abs(exact - quantized.tensors[name])
        stored = quantized.stored[name]
        if isinstance(stored, QuantizedTensor):  # half a step, and up to 127 / 2048 more: the scale is rounded
            assert np.mean(error > 0.563 * stored.scales.astype(np.float32)[:, None]) < 1e-3
        else:
            assert (error <= np.maximum(np.abs(exact) * 2**-11, 2**-25)).all()  # float16 rounding


def test_packed_types_that_are_not_known_are_named(read):
    entry = {"type": "fp4", "packed": b"1", "scale": torch.ones(1)}
    with pytest.raises(InputError, match=r"types that are not supported \(1 `fp16`, 2 `fp4`\)"):
        read({"a": entry, "b": entry, "c": {"type": "fp16", "data": torch.ones(2)}})


# ---- namings, on the tensors of shared/data/golden


@pytest.fixture(scope="module")
def golden(shared):
    """(stored tensors by stored name, label of each weight, exact weights) of pull request 1716."""
    arrays = np.load(shared / "data/golden/1716/quantize.npz")
    stored, exact = (
        {key.removeprefix(part): arrays[key] for key in arrays if key.startswith(part)}
        for part in ("mixed/out/", "mixed/deq/")
    )
    return stored, json.loads(str(arrays["config"]))["mixed_meta"], exact


def tensors_of(arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


@pytest.mark.parametrize("save", [saved, legacy])
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_around_1716(read, golden, container, save):
    stored, labels, exact = golden
    imported = read(CONTAINERS[container](save({"w": tensors_of(stored), "m": labels})))
    assert imported.kind == " in ".join(filter(None, ["levels and scales", container]))
    assert equal(imported.tensors, exact)
    assert imported.notes == ()
    for name, tensor in imported.stored.items():
        if not isinstance(tensor, QuantizedTensor):
            assert np.array_equal(tensor, stored[name])
            assert tensor.dtype == np.float16
            continue
        suffix = "_pt" if "pertensor" in labels[name] else ""
        assert np.array_equal(tensor.levels, stored[f"{name}.q{suffix}"])
        assert tensor.scales.dtype == (np.float32 if suffix else np.float16)
        assert np.array_equal(tensor.scales, stored[f"{name}.scale{suffix}"].reshape(-1))
    if container == "zlib":  # what is stored is the same in all of them
        assert equal(decode(encode(imported.stored, {})), exact)


@pytest.mark.parametrize("labels", [lambda bits: {"type": bits}, lambda bits: bits])
def test_labels_of_162_and_339(read, golden, labels):
    stored, meta, exact = golden
    rows = {key: value for key, value in stored.items() if not key.endswith("_pt")}
    names = {key for key in meta if key in rows or f"{key}.q" in rows}
    imported = read(
        {"w": tensors_of(rows), "m": {name: labels("int6" if f"{name}.q" in rows else "passthrough") for name in names}}
    )
    assert equal(imported.tensors, {name: exact[name] for name in names})


def test_the_same_weights_as_int8_clean(read, golden):
    stored, _, exact = golden
    pairs = {key[: -len(suffix)]: suffix for key in stored for suffix in (".q", ".q_pt") if key.endswith(suffix)}
    content = {
        "__quant_format__": "int8_clean_per_row_v1",
        "quantized": tensors_of({name: stored[name + suffix] for name, suffix in pairs.items()}),
        "scales": tensors_of({name: stored[name + suffix.replace("q", "scale")] for name, suffix in pairs.items()}),
        "dtypes": dict.fromkeys(pairs, "float32"),
        "passthrough": tensors_of({name: stored[name] for name in stored if name in exact}),
    }
    imported = read(content)
    assert equal(imported.tensors, exact)
    assert equal(decode(encode(imported.stored, {})), exact)


@settings(max_examples=60)
@given(
    levels=st.lists(st.lists(st.integers(-128, 127), min_size=3, max_size=3), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    scale_dtype=st.sampled_from(["float16", "float32", "bfloat16", "float64"]),
    shape=st.sampled_from(["row", "column", "one", "scalar"]),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_products_are_torchs_own(tmp_path_factory, levels, seed, scale_dtype, shape, dtype):
    levels = torch.tensor(levels, dtype=torch.int8)
    rows = len(levels) if shape in ("row", "column") else 1
    generator = torch.Generator().manual_seed(seed)
    scales = (torch.rand(rows, generator=generator) / 50).to(getattr(torch, scale_dtype))
    scales = scales.reshape({"row": (rows,), "column": (rows, 1), "one": (1,), "scalar": ()}[shape])
    content = {
        "__quant_format__": "int8_clean_per_row_v1",
        "quantized": {"w": levels},
        "scales": {"w": scales},
        "dtypes": {"w": dtype},
        "passthrough": {},
    }
    path = tmp_path_factory.getbasetemp() / "drawn.ptz"
    path.write_bytes(zlib.compress(saved(content)))
    imported = read_any(path)
    exact = levels.float() * scales.float().reshape(-1, 1)
    assert np.array_equal(imported.tensors["w"], exact.to(getattr(torch, dtype)).float().numpy())
    # Stored: levels and scales where a form holds them exactly, the float32 product and a note otherwise.
    back = decode(encode(imported.stored, {}))["w"]
    assert np.array_equal(back, exact.numpy())
    fits = rows == 1 or torch.equal(scales.to(torch.float16).to(scales.dtype), scales)
    if scale_dtype != "float64":
        assert isinstance(imported.stored["w"], QuantizedTensor) == fits
        assert any("float16 does not hold" in note for note in imported.notes) != fits
    assert any("last rounding" in note for note in imported.notes) == (dtype != "float32")


# ---- float checkpoints


@pytest.mark.parametrize("save", [saved, legacy])
def test_state_dicts(read, save):
    wide = {
        "module._orig_mod.h.weight": torch.randn(4, 5, dtype=torch.bfloat16),
        "module._orig_mod.step": torch.tensor(7),
    }
    imported = read(save({"model": wide, "optimizer": {"lr": 0.1}, "step": 3}))
    assert imported.stored is None
    assert imported.tensors["h.weight"].dtype == np.float32
    assert np.array_equal(imported.tensors["h.weight"], wide["module._orig_mod.h.weight"].float().numpy())
    assert imported.tensors["step"] == np.array(7)
    assert imported.notes == (
        "ignored what is not a tensor: `optimizer`, `step`",
        "dropped from the names, as wrapper classes add it: `_orig_mod.`, `module.`",
    )
    views = {
        "t": torch.arange(6.0).reshape(2, 3).T,
        "half": torch.ones(2, dtype=torch.float16),
        "module.x": torch.ones(1),
    }
    imported = read(save({"state_dict": views}))
    assert imported.tensors.keys() == views.keys()  # a prefix of some names only is part of the name
    assert np.array_equal(imported.tensors["t"], views["t"].numpy())
    assert imported.tensors["half"].dtype == np.float16
    with pytest.raises(UsageError, match="float checkpoint"):
        imported.levels()


def test_safetensors_under_any_name(tmp_path):
    write_checkpoint(tmp_path / "a.ptz", {"w": np.ones(3, np.float32)}, {"config": {"dim": 3}})
    imported = read_any(tmp_path / "a.ptz")
    assert (imported.kind, imported.metadata["config"], imported.stored) == ("safetensors", {"dim": 3}, None)


# ---- damage and malice


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_cut_is_refused(read, container):
    whole = CONTAINERS[container](saved(FLOATS))
    for end in {1, 3, 5, 9, 30, *range(50, len(whole) - 1, len(whole) // 15), len(whole) - 1}:
        with pytest.raises(InputError, match="file: "):
            read(whole[:end])


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_flipped_bit_is_refused_or_harmless(read, container):
    whole = CONTAINERS[container](saved(FLOATS))
    truth = {name: tensor.numpy() for name, tensor in FLOATS.items()}
    draw, refused = random.Random(1), 0
    for _ in range(80):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        try:
            assert equal(read(bytes(damaged)).tensors, truth)
        except InputError:
            refused += 1
    assert refused > 20


def test_flipped_bits_in_the_old_format_never_escape(read):
    whole, draw, refusals = legacy(FLOATS), random.Random(2), []
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        try:
            read(bytes(damaged))
        except InputError as error:
            refusals.append(str(error))
    assert refusals
    assert not any("\n" in each for each in refusals)


@pytest.mark.parametrize("container", ["zlib", "zstd", "xz", "lzma", "brotli"])
def test_a_bomb_stops_at_the_limit(read, container):
    bomb = CONTAINERS[container](bytes(48 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="expands beyond 1,000,000 bytes"):
            read(bomb, limit=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


@pytest.mark.parametrize("container", ["zlib", "zstd", "xz", "lzma", "brotli"])
def test_the_limit_is_exact(read, container):
    content = saved(FLOATS)
    assert len(read(CONTAINERS[container](content), limit=len(content)).tensors) == 2
    with pytest.raises(InputError, match="expands beyond"):
        read(CONTAINERS[container](content), limit=len(content) - 1)


def test_a_bomb_inside_the_zip_is_refused(read):
    content = saved(FLOATS)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
        target.writestr("archive/data/9", bytes(50 << 20))
    with pytest.raises(InputError, match="claims to hold"):
        read(buffer.getvalue(), limit=1_000_000)


@pytest.mark.parametrize("save", [saved, legacy])
def test_a_view_that_repeats_one_byte_is_refused(read, save):
    with pytest.raises(InputError, match="holds tensors of 4,398,046,511,104 bytes"):
        read(save({"w": torch.zeros(1).expand(1 << 40)}))


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("container", ["", "zlib", "BSHF in brotli"])
@pytest.mark.parametrize("save", [saved, legacy, pickle.dumps])
def test_a_pickle_that_runs_a_command_is_refused(read, tmp_path, save, container):
    mark = tmp_path / "executed"
    content = {"w": {"a.q": Command(f"touch {mark}")}, "m": {"a": "int6"}}
    with pytest.raises(InputError) as error:
        read(CONTAINERS[container](save(content)))
    assert not mark.exists()
    assert "\n" not in str(error.value)
    if save is not pickle.dumps:
        assert "posix.system" in str(error.value)
        torch.load(io.BytesIO(save(content)), weights_only=False)  # what it would have done
        assert mark.exists()


def clean(**changes):
    return {
        "__quant_format__": "int8_clean_per_row_v1",
        "quantized": {"w": torch.ones(2, 3, dtype=torch.int8)},
        "scales": {"w": torch.ones(2, dtype=torch.float16)},
        "dtypes": {"w": "float32"},
        "passthrough": {},
        **changes,
    }


LEVELS, SCALES = torch.ones(2, 3, dtype=torch.int8), torch.ones(2, dtype=torch.float16)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        ({}, "holds no tensors"),
        ({"model": {"a": 1}}, "holds no tensors"),
        ({3: torch.ones(2)}, "named 3"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "not an array of real numbers"),
        ({"w": torch.ones(2, 2).to_sparse()}, "not an array of real numbers"),
        ({"w": torch.ones(2, device="meta")}, "not an array of real numbers"),
        (clean(__quant_format__="int9"), "unknown format `int9`"),
        (clean(quantized=None), "NoneType as `quantized`"),
        (clean(scales={}), "do not pair"),
        (clean(scales={"w": 3.0}), "not tensors: `w`"),
        (clean(scales={"w": torch.ones(3)}), "scales of shape (3,) for levels of shape (2, 3)"),
        (clean(scales={"w": torch.ones(2, 3)}), "scales of shape (2, 3)"),
        (clean(scales={"w": torch.ones(2, dtype=torch.int32)}), "int32 scales"),
        (clean(scales={"w": torch.tensor([1, torch.inf])}), "not finite"),
        (clean(quantized={"w": torch.ones(2, 3)}), "float32 levels"),
        (clean(dtypes={"w": "os"}), "dtype `os`"),
        (clean(dtypes=[1]), "do not pair"),
        (clean(qmeta={"w": {"scheme": "per_row", "axis": 1}}), "unknown scheme"),
        (clean(passthrough={"w": torch.ones(2)}), "holds `w` twice"),
        ({"w": {"a.q": LEVELS, "a.scale": SCALES}, "m": {}}, "without a label: `a.q`"),
        ({"w": {"a.q": LEVELS}, "m": {"a": "int6"}}, "has no data"),
        ({"w": {"a.q": LEVELS, "a.scale": SCALES}, "m": {"a": "gptq (int6)+lqer_asym"}}, "more than levels"),
        ({"w": {"a.q": LEVELS, "a.scale": SCALES, "a.lqA": LEVELS}, "m": {"a": "int6"}}, "without a label: `a.lqA`"),
        ({"w": {}, "m": {}}, "holds no tensors"),
        ({"w": {"a": torch.tensor([torch.nan])}, "m": {"a": "passthrough"}}, "not finite"),
    ],
)
def test_wrong_contents_are_named(read, content, message):
    with pytest.raises(InputError) as error:
        read(content)
    assert message in str(error.value)
    assert "file" in error.value.where


@pytest.mark.parametrize("data", [b"hello", bytes(100), b"\x78\x9c", b"BSHF", b"PK\x03\x04", bytes(range(256)) * 9])
def test_other_files_are_refused(read, data):
    with pytest.raises(InputError, match=r"is (not|a damaged|damaged)"):
        read(data)


def test_random_bytes_behind_every_magic_are_refused(read):
    draw = random.Random(3)
    for magic in (b"", b"\x78\xda", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"\x5d\0\0\x80\0", b"PK\x03\x04", b"BSHF\2"):
        for _ in range(20):
            with pytest.raises(InputError):
                read(magic + draw.randbytes(200))


def test_missing_packages_are_named(read, monkeypatch):
    whole = CONTAINERS["brotli"](saved(FLOATS))
    monkeypatch.setitem(sys.modules, "brotli", None)
    with pytest.raises(EnvironmentLacks, match="brotli"):
        read(whole)
    with pytest.raises(InputError, match="damaged zlib"):
        read(b"\x78\x9cnothing")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EnvironmentLacks, match="package torch"):
        read(zlib.compress(b"PK\x03\x04"))


def test_the_package_loads_without_torch():
    check = "import packager, packager.importers.read_any, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def test_weights_under_any_name_beside_a_number_are_the_model(read):
    """Before, the loss was read as a model of one tensor."""
    state = {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}
    for beside in (torch.tensor(2.5), torch.arange(9.0)):
        found = read(saved({"anything": state, "loss": beside}))
        assert found.tensors.keys() == state.keys()
        assert any("`anything`" in note and "`loss`" in note for note in found.notes)


def test_matrices_beside_weights_under_an_unknown_name_are_refused(read):
    content = {"anything": {"a.weight": torch.ones(3, 4)}, "b.weight": torch.ones(4, 4)}
    with pytest.raises(InputError, match=r"holds matrices itself \(`b.weight`\) and tensors in `anything`"):
        read(saved(content))
