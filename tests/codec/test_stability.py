"""Bytes are an interface: golden artifacts, other processes, the decoder as shipped, time and memory bounds."""

import hashlib
import itertools
import json
import lzma
import os
import random
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from codec import CodecError, QuantizedTensor, decode, encode, unpack
from codec.decoder import Trellis, parse_form
from codec.encoder import _assemble, _plan
from packager.script.bundle import bundle
from packager.script.minify import minify
from packager.script.wrapper import wrap
from tests.golden.regenerate import (
    FOLDER,
    GOLDEN,
    META,
    MOVES,
    column_steps,
    decoded,
    digests,
    grouped,
    tensors,
    trellis,
    walk,
)
from tests.strategies import lattices, patterned_tensors, state_dicts

ROOT = Path(__file__).resolve().parents[2]
SIDES = (-1, 0, 1, 2, 7, 255, 256, 511, 512, 1 << 16, 1 << 20, 1 << 27, 1 << 28, 1 << 40, 1 << 62, 1 << 70)
ODD = (*SIDES, 0.5, True, None, "", "w", "row", "row*", "row=", "trellis", "<f4")
DECODER_BYTES = 4500  # what a submission pays at most for its decoder, compressed; 3.6 kB now
DECODED = json.loads((FOLDER / "decoded.json").read_text())
OTHER_PYTHONS = ("python3.12", "python3.13", "python3.14")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_artifact_decodes_to_the_same_arrays(name):
    blob = (FOLDER / f"{name}.bin").read_bytes()
    assert digests(blob) == json.loads((FOLDER / f"{name}.json").read_text())
    assert decoded(blob) == DECODED[name]


@pytest.mark.parametrize("python", OTHER_PYTHONS)
def test_another_python_decodes_the_golden_artifacts_to_the_same_arrays(python):
    program = (
        "import json; from tests.golden.regenerate import FOLDER, GOLDEN, decoded\n"
        "print(json.dumps({name: decoded((FOLDER / f'{name}.bin').read_bytes()) for name in GOLDEN}))"
    )
    found = shutil.which(python)
    if not found or subprocess.run([found, "-c", "import numpy"], capture_output=True).returncode:
        pytest.skip(f"no {python} with numpy on this machine")
    done = subprocess.run([found, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == DECODED


@pytest.mark.parametrize("name", GOLDEN)
def test_the_encoder_still_writes_the_golden_bytes(name):
    assert encode(GOLDEN[name](), META) == (FOLDER / f"{name}.bin").read_bytes()


def test_golden_artifact_uses_every_feature_of_the_format():
    header, _ = unpack((FOLDER / "mixed.bin").read_bytes())
    (grouped,) = unpack((FOLDER / "grouped.bin").read_bytes())[0]["forms"]
    assert len(grouped) == 8  # rows cut into segments
    forms = {form[0]: form for form in header["forms"]}
    assert {"row", "all", "<f2", "<f4", "<f8", "<i8", "|b1"} == set(forms)
    named = [parse_form(form) for form in unpack((FOLDER / "trellis.bin").read_bytes())[0]["forms"]]
    coded = [form for form in named if form.trellis]
    assert {form.if_odd for form in coded} == {0, 5, 33}  # 1, 8 and 64 states
    assert {form.earlier for form in coded} == {0, 1, 2}
    assert {len(form.shape) for form in coded} == {1, 2, 3}
    assert any(form.far_table for form in coded)
    assert any(form.row_table and form.segments > 1 and form.odd_tables for form in coded)
    assert min(form.restart for form in coded) == 1
    stepped, _ = unpack((FOLDER / "column_steps.bin").read_bytes())
    kinds = [stepped["forms"][form][0] for _, _, form in stepped["names"]]
    assert kinds == ["row*", "row=", "row=", "row*", "row*", "row*", "<f2"]
    assert any(len(form) == 9 for form in header["forms"])  # predicted rows
    assert any(form < 0 for _, _, form in header["names"])  # ties


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_bytes_do_not_depend_on_the_process(threads):
    program = (
        "import hashlib; from codec import encode; from tests.golden.regenerate import GOLDEN, META\n"
        "for made in GOLDEN.values(): print(hashlib.sha256(encode(made(), META)).hexdigest())"
    )
    environment = dict.fromkeys(("PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    golden = [hashlib.sha256((FOLDER / f"{name}.bin").read_bytes()).hexdigest() for name in GOLDEN]
    assert done.stdout.split() == golden


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Path:
    """A script that prints the sha256 of each artifact named on its command line, packed as submissions are."""
    script = """
import hashlib
import sys

from codec.decoder import decode

for name in sys.argv[1:]:
    with open(name, "rb") as file:
        tensors = decode(file.read())
    digest = hashlib.sha256()
    for key, array in tensors.items():
        digest.update(repr((key, array.dtype.str, array.shape)).encode() + array.tobytes())
    print(digest.hexdigest())
"""
    parts = bundle(script, "script")
    modules = {name: minify(text, name) for name, text in parts.modules.items()}
    path = tmp_path_factory.mktemp("shipped") / "train_gpt.py"
    path.write_bytes(wrap(minify(parts.main, "script"), modules))
    return path


@pytest.mark.slow
@given(st.lists(state_dicts | patterned_tensors().map(lambda tensor: {"w": tensor}), min_size=2, max_size=2))
@example([tensors()])
@settings(max_examples=10, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
def test_the_shipped_decoder_agrees_in_an_isolated_interpreter(shipped, dicts):
    expected = []
    for number, each in enumerate(dicts):
        blob = encode(each, {})
        shipped.with_name(f"{number}.bin").write_bytes(blob)
        digest = hashlib.sha256()
        for name, array in decode(blob).items():
            digest.update(repr((name, array.dtype.str, array.shape)).encode() + array.tobytes())
        expected.append(digest.hexdigest())
    files = [f"{number}.bin" for number in range(len(expected))]
    done = subprocess.run(
        [sys.executable, "-I", shipped.name, *files], cwd=shipped.parent, capture_output=True, text=True
    )
    assert done.stdout.split() == expected, done.stderr


def test_the_decoder_stays_within_its_budget(shipped):
    parts = bundle("from codec.decoder import decode\n", "script")
    modules = {name: minify(text, name) for name, text in parts.modules.items()}
    assert set(modules) == {"codec.errors", "codec.decoder"}
    compressed = len(lzma.compress("".join(modules.values()).encode(), format=lzma.FORMAT_ALONE))
    assert compressed < DECODER_BYTES
    # In base85 it is a quarter more; the wrapper and its loader are there anyway.
    assert len(wrap("", modules)) - len(wrap("", {"m": ""})) < 1.25 * DECODER_BYTES


@pytest.mark.slow
def test_thousands_of_tensors():
    source = np.random.default_rng(0)
    many = {
        f"blocks.{i}.w": QuantizedTensor(source.integers(-8, 8, (3, 5)).astype(np.int8), np.ones(3, np.float16))
        for i in range(3000)
    }
    blob = encode(many, {})
    back = unpack(blob)[1]
    assert all(np.array_equal(back[name].levels, tensor.levels) for name, tensor in many.items())


@pytest.mark.parametrize("kind", ["normal", "segments"])
def test_memory_is_a_small_multiple_of_the_weights(kind):
    random = np.random.default_rng(0)
    if kind == "normal":
        levels = random.normal(0, 3, (1000, 1500)).round().clip(-31, 31).astype(np.int8)
    else:
        levels = lattices(random, 1000, 1536, 64) * np.int8(4)
    weights = {"w": QuantizedTensor(levels, np.ones(1000, np.float16))}
    float_bytes = 4 * levels.size
    tracemalloc.start()
    blob = encode(weights, {})
    encode_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    floats = decode(blob)
    decode_peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert floats["w"].nbytes == float_bytes
    # One tensor is the worst case: with many, only the largest is being worked on.
    assert encode_peak < 8 * float_bytes
    assert decode_peak < 3 * float_bytes


def fuzz(damaged) -> dict[str, int]:
    """Decode each; any outcome but a CodecError or complete arrays is a bug."""
    outcomes = {"refused": 0, "decoded": 0}
    for blob in damaged:
        try:
            found = decode(blob)
        except CodecError:
            outcomes["refused"] += 1
        else:
            outcomes["decoded"] += 1
            assert all(isinstance(array, np.ndarray) for array in found.values())
    return outcomes


@pytest.fixture
def originals(monkeypatch) -> list[bytes]:
    """Every form of the format, and one tensor.  32 lanes instead of one: a decode takes 6 ms instead of 60."""
    monkeypatch.setattr("codec.encoder.lane_count", lambda symbols: 32 if symbols > 1000 else 1)
    one = {"w": QuantizedTensor(np.zeros((4, 4), np.int8), np.ones(4, np.float16))}
    every = [tensors(), one, grouped(), column_steps(), small_trellises()]
    return [encode(each, {}) for each in every]


def small_trellises() -> dict:
    """The first rows of the golden ones: each row takes 0.1 ms."""
    return {
        name: each._replace(levels=each.levels[:9], row_steps=each.row_steps[:9]) if each.levels.ndim == 2 else each
        for name, each in trellis().items()
        if isinstance(each, QuantizedTensor) and each.trellis and each.levels.size
    }


@pytest.mark.parametrize("cases", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_fuzzing_the_bytes_finds_nothing(originals, cases):
    """One to four bytes changed, half of them in what comes first, and the checksum repaired."""
    source = random.Random(cases)

    def damaged():
        for number in range(cases):
            blob = bytearray(originals[number % 5][:-4])
            for _ in range(source.randint(1, 4)):
                place = source.randrange(len(blob)) if source.random() < 0.5 else source.randrange(min(400, len(blob)))
                blob[place] = source.randrange(256)
            yield bytes(blob) + zlib.crc32(blob).to_bytes(4, "little")

    assert fuzz(damaged())["refused"] > cases // 2


@pytest.mark.slow
def test_fuzzing_the_header_finds_nothing(originals):
    """Headers that are JSON of nearly the right shape, before the planes of the honest one: bytes seldom get so far."""
    every = {**tensors(), **grouped(), **{f"steps.{name}": each for name, each in column_steps().items()}}
    every |= {f"trellis.{name}": each for name, each in small_trellises().items()}
    source, plan = random.Random(1), _plan(dict(sorted(every.items())))
    header = json.dumps({"forms": plan.forms, "meta": {}, "names": plan.names})
    assert decode(_assemble(plan, header.encode())).keys() == every.keys()

    def damaged():
        for _ in range(1_000):
            changed = json.loads(header)
            for _ in range(source.choice((1, 1, 2))):
                change(changed, source)
            yield _assemble(plan, json.dumps(changed).encode())

    assert fuzz(damaged())["refused"] > 500


@pytest.fixture
def two_trellises() -> dict:
    rule, steps = Trellis(*MOVES[8], 512), np.arange(100, 104, dtype=np.uint8)
    levels = walk(np.array([[0, 1, -2, 3], [1, -1, 0, 0], [2, 0, 1, 1]]), rule)
    first = QuantizedTensor(levels, np.ones(1, np.float32), steps, steps[:3], rule)
    return {"a": first, "b": first._replace(levels=walk(np.array([[1, -300, 2, 3]] * 3), rule))}


@pytest.mark.parametrize("place", range(18))
def test_every_number_of_a_trellis_is_checked(place, two_trellises, monkeypatch):
    """Sides, tables and numbers, each with every odd value, before the honest planes."""
    monkeypatch.setattr("codec.encoder.lane_count", lambda symbols: 32)
    plan = _plan(two_trellises)
    header = json.dumps({"forms": plan.forms, "meta": {}, "names": plan.names})

    def damaged():
        for form, odd in itertools.product(range(2), ODD):
            changed = json.loads(header)
            flat = changed["forms"][form]
            kind, shape, tables, *numbers = flat
            values = [*shape, *tables, *numbers]
            values[place] = odd
            changed["forms"][form] = [kind, values[:2], values[2:8], *values[8:]]
            yield _assemble(plan, json.dumps(changed).encode())

    assert fuzz(damaged())["refused"] >= 2 * 12  # what is no integer from 0 to 2**28


def test_every_truncation_of_a_trellis_is_refused(two_trellises):
    blob = encode(two_trellises, {})
    words = blob[:-4]
    for length in range(len(words)):
        body = words[:length]
        assert fuzz([body, body + zlib.crc32(body).to_bytes(4, "little")])["refused"] == 2


def change(value, source: random.Random) -> None:
    """Replace, remove, repeat or move one thing somewhere inside a JSON list or object."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    if not keys:
        return
    key = source.choice(keys)
    inner, action = value[key], source.choice(("odd", "near", "gone", "moved", "again"))
    if isinstance(inner, list | dict) and source.random() < 0.9:
        change(inner, source)
    elif action == "near" and type(inner) is int:
        value[key] = inner + source.choice((-1, 1))
    elif action == "gone":
        del value[key]
    elif action in ("moved", "again") and isinstance(value, list):
        value.insert(source.randrange(len(value)), value.pop(key) if action == "moved" else inner)
    else:
        value[key] = source.choice(ODD)
