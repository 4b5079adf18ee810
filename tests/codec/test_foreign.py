"""Crafted artifacts with right checksums: bounded work and memory, refused or read; and read in a limited process."""

import hashlib
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from codec import CodecError, QuantizedTensor, decode, encode, ledger
from codec.decoder import STEP, WORK, Stream, Trellis, open_artifact, read_tensors
from codec.measurement import foreign
from codec.measurement.foreign import foreign_ledger, tensor_state
from tests.codec.crafted import LARGE, SMALL, craft, header, memory_bound, one
from tests.golden.regenerate import MOVES, walk


class Counted(Stream):
    """Counts what is really decoded, apart from what the stream itself says is left."""

    symbols = steps = planes = declared = 0

    def take(self, tables):
        found = super().take(tables)
        Counted.declared = self.size  # what was allowed to begin
        Counted.symbols += len(tables)
        Counted.steps += -(-len(tables) // len(self.states))
        Counted.planes += 1
        return found


def measured(blob: bytes, monkeypatch) -> tuple[int, int, bool]:
    """(peak bytes, bytes of the arrays it declared, whether it was read); what was decoded is in `Counted`."""
    Counted.symbols = Counted.steps = Counted.planes = Counted.declared = 0
    monkeypatch.setattr("codec.decoder.open_artifact.__defaults__", (Counted,))
    tracemalloc.start()
    try:
        found = decode(blob)
    except CodecError:
        found = {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, sum({id(each): each.nbytes for each in found.values()}.values()), bool(found)


def check(blob: bytes, monkeypatch) -> None:
    peak, size, read = measured(blob, monkeypatch)
    words = int.from_bytes(blob[16:20], "little")
    steps = WORK + words / 2
    assert Counted.symbols <= steps * STEP
    assert Counted.steps <= steps
    assert Counted.planes <= steps / 5
    assert peak <= memory_bound(blob, size if read else Counted.declared)


@pytest.mark.parametrize("name", SMALL)
def test_small_crafted_artifacts_are_bounded(name, monkeypatch):
    check(SMALL[name](), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_crafted_artifacts_are_bounded(name, monkeypatch):
    check(LARGE[name](), monkeypatch)


READ = {  # what is decoded, as far as its work goes
    "names that grow",
    "names of wide characters",
    "names of nothing but wide characters",
    "tables",
    "JSON that nests",
    "nested to the limit",
    "integers of 4200 digits",
    "not numbers",
    "keys that occur twice",
    "half a surrogate pair",
    "a name for a terminal",
    "states of a trellis beyond its columns",
}


@pytest.mark.parametrize("name", [name for name in SMALL if name not in READ])
def test_what_asks_for_more_than_it_may_is_refused_before_it_is_decoded(name, monkeypatch):
    peak, _, read = measured(SMALL[name](), monkeypatch)
    assert not read
    assert Counted.symbols <= 1 << 20  # of the text at most
    assert peak < 20 << 20


def test_metadata_that_nest_are_refused_for_whoever_prints_them():
    with pytest.raises(CodecError, match="metadata nest deeper than 100 levels"):
        tensor_state(SMALL["nested to the limit"]())
    nested = {"a": [[{"b": [1]}]]}
    assert tensor_state(encode({}, nested))[0] == nested


@pytest.mark.slow
def test_a_file_with_more_data_may_ask_for_more():
    """The same rows are refused from a file of few words, and read from one that has them."""
    rows, noise = 30_000, np.random.default_rng(0).integers(0, 256, 250_000)
    form = ["trellis", [rows, 1], [2] * 6, 2, 0, 0, 1, 5, 2, 512, 0, 0, 0]
    planes = [(0, 1, 2)] * 5 + [(0, rows, 2)] + [(0, 1, 2)] * rows
    with pytest.raises(CodecError, match="outside the format's limits"):
        decode(one(form, planes, lanes=64))
    said = header([form, ["|u1", [len(noise)], [0]]], [[0, "a", 0], [0, "b", 1]])
    found = decode(craft(said, [*planes, (noise, len(noise), 0)], lanes=64))
    assert (found["a"].shape, found["b"].tolist()) == ((rows, 1), noise.tolist())


@pytest.mark.slow
def test_honest_artifacts_are_far_from_the_limit():
    """docs/format.md says so of a trellis of a million weights."""
    random, rule = np.random.default_rng(0), Trellis(*MOVES[64], 512)
    tensors = {}
    for name in ("a", "b"):
        levels = walk(random.normal(0, 2, (1024, 512)).round().astype(int), rule)
        steps = random.integers(100, 140, 1024).astype(np.uint8)
        tensors[name] = QuantizedTensor(levels, np.ones(1, np.float32), steps[:512], steps, rule)
    stream, said = open_artifact(encode(tensors, {}))
    words = len(stream.words)
    read_tensors(stream, said)
    assert 0.1 < (WORK + words / 2 - stream.left) / words < 0.2


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"a": np.zeros(4, np.longdouble)}, "has dtype float128, which an artifact cannot hold"),
        (
            {"a" * 3000 + f"{number:04}": np.zeros(2, np.int8) for number in range(1600)},
            "133762 steps of a reader, these take 175883;",
        ),
    ],
)
def test_the_encoder_writes_nothing_that_a_reader_refuses(tensors, reason):
    with pytest.raises(CodecError, match=reason):
        encode(tensors, {})


def test_the_encoder_counts_as_the_reader_does(monkeypatch):
    """Word for word: with a limit one step below what is needed it refuses, and so does the reader."""
    random = np.random.default_rng(0)
    levels = random.integers(-3, 4, (40, 30)).astype(np.int8)
    tensors = {"a": QuantizedTensor(levels, np.ones(40, np.float16)), "b": np.arange(9.0), "c": np.arange(9.0)}
    blob = encode(tensors, {"x": 1})
    stream, said = open_artifact(blob)
    read_tensors(stream, said)
    needed = math.ceil(WORK - stream.left)
    for name in ("codec.encoder.WORK", "codec.decoder.WORK"):
        monkeypatch.setattr(name, needed)
    assert encode(tensors, {"x": 1}) == blob
    assert decode(blob).keys() == tensors.keys()
    monkeypatch.setattr("codec.encoder.WORK", needed - 1 - len(stream.words))
    with pytest.raises(CodecError, match="steps of a reader"):
        encode(tensors, {"x": 1})


def test_a_foreign_artifact_is_read_as_our_own():
    levels = np.arange(100, dtype=np.int8).reshape(10, 10)
    tensor = QuantizedTensor(levels, np.ones(10, np.float16))
    blob = encode({"a": tensor, "b": np.float64([1, 2]), "tied": tensor, "scalar": np.array(True)}, {"x": [1]})
    meta, state = tensor_state(blob)
    assert meta == {"x": [1]}
    assert state == {
        name: {"dtype": each.dtype.name, "shape": [*each.shape], "sha256": hashlib.sha256(each.tobytes()).hexdigest()}
        for name, each in decode(blob).items()
    }
    assert foreign_ledger(blob) == ledger(blob).to_dict()


def test_a_tie_is_hashed_once(monkeypatch):
    hashed, blob = [], encode({f"w{number}": np.arange(5.0) for number in range(7)}, {})
    monkeypatch.setattr(foreign.hashlib, "sha256", lambda data: hashed.append(data) or hashlib.sha1(data))
    state = foreign.foreign_facts(blob)["state"]
    assert (len(state), len(hashed)) == (7, 1)


def test_a_damaged_artifact_is_a_sentence_from_the_other_process():
    for read in (tensor_state, foreign_ledger):
        with pytest.raises(CodecError, match="starts with b'nope', an artifact of this version"):
            read(b"nope")


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("import resource as r; r.setrlimit(r.RLIMIT_CPU, (1, 9))\nwhile True: pass", "120 seconds of processor time"),
        ("raise SystemExit('no numpy')", "ended with 1 no numpy"),
    ],
)
def test_a_process_that_ends_is_a_sentence(start, reason, monkeypatch):
    monkeypatch.setattr(foreign, "START", start)
    with pytest.raises(CodecError, match=reason):
        tensor_state(b"")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of memory")
def test_the_process_has_limits():
    """Asked of the process itself, after it has set them."""
    program = "from codec.measurement import foreign as f, foreign; f._limit(); import resource as r\n"
    program += "print(r.getrlimit(r.RLIMIT_CPU)[0], r.getrlimit(r.RLIMIT_AS)[0])\ntry: bytearray(9 * 10**9)\n"
    program += "except MemoryError: print('held')"
    done = subprocess.run([sys.executable, "-c", program], cwd=foreign.ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [str(foreign.SECONDS), str(foreign.MEMORY), "held"]
