"""The self-extracting script: exact round trip, same behaviour as the plain script, damage never goes unnoticed."""

import ast
import base64
import hashlib
import lzma
import random
import re
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import CodecError, InputError
from packager.script.wrapper import HEAD, MAIN, MAX_PAYLOAD, TAIL, unwrap, wrap

SOURCES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)
NAMES = st.from_regex(r"[a-z_]{1,6}(\.[a-z_]{1,6}){0,2}", fullmatch=True)

ERRORS = "class BoomError(Exception):\n    pass\n"
TOOL = """\
from pack_a.errors import BoomError

def double(x):
    # a comment with ümlauts and "quotes"
    return 2 * x

def fail():
    raise BoomError("on purpose")
"""
MODULES = {"pack_a.errors": ERRORS, "pack_b.tool": TOOL}
# Imports of the carried packages from anywhere but the wrapper fail.
BLOCKED = """\
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pack_a", "pack_b", "codec", "trainer", "verify", "packager"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
"""


def run(folder, main, modules=MODULES, *, by=None, arguments=()):
    """Wrap, write into `folder`, run with `python -I` from another, empty directory."""
    script = folder / "train_gpt.py"
    script.write_bytes(wrap(main, modules))
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    start = ["-c", BLOCKED + by.format(script=str(script))] if by else [str(script)]
    return subprocess.run(
        [sys.executable, "-I", *start, *arguments], cwd=elsewhere, capture_output=True, text=True, timeout=120
    )


@given(SOURCES, st.dictionaries(NAMES.filter(lambda name: name != MAIN), SOURCES, max_size=4))
def test_unwrap_inverts_wrap(main, modules):
    data = wrap(main, modules)
    assert data.isascii()
    ast.parse(data)
    assert list(unwrap(data).items()) == [*modules.items(), (MAIN, main)]
    assert wrap(main, modules) == data


JSON = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
@settings(max_examples=30)
def test_running_the_wrapper_is_running_the_script(value):
    main = f"# coding: utf-8\n'''doc'''\nvalue = {value!r}\nlength = len(repr(value))\n"
    plain, packed = {"__name__": "x"}, {"__name__": "x", "__file__": "nowhere.py"}
    exec(main, plain)
    exec(wrap(main, {}), packed)
    assert {key: packed[key] for key in ("value", "length", "__doc__", "__name__")} == {
        key: plain[key] for key in ("value", "length", "__doc__", "__name__")
    }


def test_header_names_the_payloads_hash():
    data = wrap("print(1)\n", MODULES)
    first = data.decode().splitlines()[0]
    payload = "\0".join(["pack_a.errors", ERRORS, "pack_b.tool", TOOL, "print(1)\n"]).encode()
    assert hashlib.sha256(payload).hexdigest() in first
    # Other decoders of the field look for the argument of b85decode and hand it to lzma.decompress.
    literal = re.search(rb'b85decode\("([^"]*)"', data)[1]
    assert lzma.decompress(base64.b85decode(literal)) == payload


WRAPPED = wrap("print(1)\n" * 20, MODULES)


def test_every_truncation_is_noticed():
    for length in range(len(WRAPPED)):
        with pytest.raises(CodecError):
            unwrap(WRAPPED[:length])


def test_every_flipped_bit_is_noticed():
    for bit in range(8 * len(WRAPPED)):
        damaged = bytearray(WRAPPED)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            unwrap(bytes(damaged))


@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_added_code_is_noticed(where):
    text = WRAPPED.decode()
    at = {"before": 0, "inside": text.index("for N,F"), "after": len(text)}[where]
    with pytest.raises(CodecError):
        unwrap((text[:at] + "import os\n" + text[at:]).encode())


def forged(packed, payload=b""):
    literal = base64.b85encode(packed)
    return (
        HEAD.format(sha256=hashlib.sha256(payload).hexdigest(), crc32=zlib.crc32(literal), literal=literal.decode())
        + TAIL
    ).encode()


def test_a_decompression_bomb_stays_small():
    compressor = lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=0)
    zeros = bytes(MAX_PAYLOAD)
    bomb = b"".join(compressor.compress(zeros) for _ in range(8)) + compressor.flush()
    del zeros
    tracemalloc.start()
    with pytest.raises(CodecError, match="more than"):
        unwrap(forged(bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_PAYLOAD


def test_a_huge_dictionary_is_refused():
    packed = bytearray(lzma.compress(b"x" * 100, lzma.FORMAT_ALONE))
    packed[1:5] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(CodecError, match="decompressed"):
        unwrap(forged(bytes(packed), b"x" * 100))


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"name\0",
        b"../../evil\0x = 1\0main",
        b"a\0\0a\0\0main",
        b"__main__\0x\0main",
        b"\0x\0main",
    ],
)
def test_impossible_contents_are_refused(payload):
    with pytest.raises(CodecError):
        unwrap(forged(lzma.compress(payload, lzma.FORMAT_ALONE), payload))


def test_bytes_left_over_are_refused():
    payload = b"print(1)"
    with pytest.raises(CodecError, match="left over"):
        unwrap(forged(lzma.compress(payload, lzma.FORMAT_ALONE) + b"more", payload))


@pytest.mark.parametrize(
    ("main", "modules"),
    [
        ("a\0b", {}),
        ("\ud800", {}),
        ("", {"no-name": ""}),
        ("", {"__main__": ""}),
        ("", {"": ""}),
    ],
)
def test_unwrappable_input_is_refused(main, modules):
    with pytest.raises(InputError):
        wrap(main, modules)


def test_the_settings_beat_plain_lzma_and_never_lose():
    rng = random.Random(1)
    for text in (TOOL * 3, Path(__file__).read_text(), "".join(map(chr, rng.choices(range(32, 1000), k=5000)))):
        literal = re.search(rb'b85decode\("([^"]*)"', wrap(text, {}))[1]
        published = lzma.compress(text.encode(), lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME)
        assert len(literal) <= len(base64.b85encode(published))


MAIN_SCRIPT = '''\
import inspect
from pack_b.tool import double, fail

def load(path, device="cpu"):
    """not stripped"""
    return double(len(path)), device

class Model:
    pass

if __name__ == "__main__":
    print(__file__)
    print(inspect.getsource(double) + inspect.getsource(load) + inspect.getsource(Model))
    fail()
'''


def test_runs_alone_with_sources_and_tracebacks(tmp_path):
    done = run(tmp_path, MAIN_SCRIPT, by="runpy.run_path({script!r}, run_name='__main__')")
    assert done.returncode == 1
    assert done.stdout == (
        f"{tmp_path / 'train_gpt.py'}\n"
        'def double(x):\n    # a comment with ümlauts and "quotes"\n    return 2 * x\n'
        'def load(path, device="cpu"):\n    """not stripped"""\n'
        "    return double(len(path)), device\nclass Model:\n    pass\n\n"
    )


def test_an_uncaught_error_shows_the_sources_lines(tmp_path):
    done = run(tmp_path, MAIN_SCRIPT)
    assert done.returncode == 1
    assert 'train_gpt.py", line 14, in <module>\n    fail()' in done.stderr
    assert 'train_gpt.py:pack_b.tool", line 8, in fail\n    raise BoomError("on purpose")' in done.stderr
    assert done.stderr.endswith("pack_a.errors.BoomError: on purpose\n")
    assert "b85decode" not in done.stderr


def test_run_path_gives_load_without_running_main(tmp_path):
    done = run(
        tmp_path, MAIN_SCRIPT, by="print(runpy.run_path({script!r}, run_name='pgolf_submission')['load']('abc'))"
    )
    assert (done.stdout, done.stderr) == ("(6, 'cpu')\n", "")


def test_arguments_and_exit_code_pass_through(tmp_path):
    done = run(tmp_path, "import sys\nprint(sys.argv[1:])\nsys.exit(7)\n", arguments=["--a", "b"])
    assert (done.returncode, done.stdout) == (7, "['--a', 'b']\n")


def test_spawned_processes_find_everything(tmp_path):
    main = """\
import multiprocessing
from dataclasses import dataclass
from pack_b.tool import double, fail
@dataclass
class Job:
    size: int
def work(job):
    return double(job.size)
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(work, [Job(1), Job(2)]), pool.map(double, [3]))
        try:
            pool.apply(fail)
        except Exception as error:
            print(type(error).__module__)
"""
    done = run(tmp_path, main)
    assert (done.stdout, done.stderr) == ("[2, 4] [6]\npack_a.errors\n", "")


def test_torch_compile_sees_carried_functions(tmp_path):
    main = """\
import torch
from pack_b.tool import double
@torch.compile(backend="eager", fullgraph=True)
def step(x):
    return double(x) + 1
print(step(torch.ones(2)).tolist())
"""
    done = run(tmp_path, main)
    assert done.stdout == "[3.0, 3.0]\n", done.stderr
