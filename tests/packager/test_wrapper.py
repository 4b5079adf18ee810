"""The self-extracting script: exact round trip, same behaviour as the plain script, damage never goes unnoticed."""

import ast
import base64
import lzma
import random
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import CodecError, InputError
from packager.script import base125, wrapper
from packager.script.capitals import fold, unfold
from packager.script.loader import loader
from packager.script.wrapper import MAIN, MAX_PAYLOAD, _assembled, unwrap, wrap
from tests.conftest import ROOT
from tests.packager.field_scripts import SETTINGS

FORMS = ("safe", "dense")
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


def run(folder, main, modules=MODULES, *, by=None, arguments=(), form="safe"):
    """Wrap, write into `folder`, run with `python -I` from another, empty directory."""
    script = folder / "train_gpt.py"
    script.write_bytes(wrap(main, modules, form=form))
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    start = ["-c", BLOCKED + by.format(script=str(script))] if by else [str(script)]
    return subprocess.run(
        [sys.executable, "-I", *start, *arguments], cwd=elsewhere, capture_output=True, text=True, timeout=120
    )


SHOWN = st.dictionaries(st.sampled_from(["VOCAB_SIZE", "SEED"]), st.sampled_from(["8192", "'./data'"]))


@given(
    SOURCES,
    st.dictionaries(NAMES.filter(lambda name: name != MAIN), SOURCES, max_size=4),
    st.sampled_from(FORMS),
    SHOWN,
)
def test_unwrap_inverts_wrap(main, modules, form, shown):
    data = wrap(main, modules, form=form, shown=shown)
    assert data.isascii()
    ast.parse(data)
    assert list(unwrap(data).items()) == [*modules.items(), (MAIN, main)]
    assert wrap(main, modules, form=form, shown=shown) == data
    for name, value in shown.items():
        assert f"\n# {name}={value}\n".encode() in data


@given(st.text(st.sampled_from("ABab_1\1\0é.ß İ"), max_size=40))
def test_folded_capitals_come_back_or_the_text_is_left_as_it_is(text):
    folded = fold(text)
    assert folded is None or unfold(folded) == text
    if "\1" not in text:
        assert folded is not None


def test_capitals_are_folded_only_where_that_is_smaller(monkeypatch):
    for text, folds in ((SETTINGS, True), ("x = 1\n", False)):
        chosen = wrap(text, {}, form="dense")
        with monkeypatch.context() as patched:
            patched.setattr(wrapper, "fold", lambda text: None)
            plain = wrap(text, {}, form="dense")
        assert (len(chosen) < len(plain)) == folds
        assert (chosen == plain) != folds


JSON = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON, st.sampled_from(FORMS))
@settings(max_examples=30)
def test_running_the_wrapper_is_running_the_script(value, form):
    """Its namespace too: nothing of the loader is left there."""
    main = f"# coding: utf-8\n'''doc'''\nvalue = {value!r}\nlength = len(repr(value))\n"
    plain, packed = {"__name__": "x", "__file__": "nowhere.py"}, {"__name__": "x", "__file__": "nowhere.py"}
    exec(main, plain)
    exec(wrap(main, {}, form=form), packed)
    assert list(packed) == [*plain]
    assert repr({**packed, "__builtins__": 0}) == repr({**plain, "__builtins__": 0})


def test_the_first_lines_say_what_it_is():
    lines = wrap("print(1)\n", MODULES, shown={"VOCAB_SIZE": "1024", "SEED": "1337"}).decode().splitlines()
    assert re.fullmatch(r"# pgolf-pack 2 [0-9a-f]{8}: pgolf inspect --unwrap DIR", lines[0])
    assert lines[1:3] == ["# VOCAB_SIZE=1024", "# SEED=1337"]
    # Other decoders of the field look for the argument of b85decode and hand it to lzma.decompress.
    literal = re.search(r'b85decode\("([^"]*)"', lines[3])[1]
    assert lzma.decompress(base64.b85decode(literal)).endswith(f"{TOOL}\0print(1)\n".encode())


@pytest.mark.parametrize("name", ["a\nimport os\n", "", "x y"])
def test_what_is_shown_stays_on_its_line(name):
    with pytest.raises(InputError, match="cannot be shown"):
        wrap("", {}, shown={name: "1"})
    with pytest.raises(InputError, match="cannot be shown"):
        wrap("", {}, shown={"SEED": f"1{name}\n"})


WRAPPED = {form: wrap("print(1)\n" * 20, MODULES, form=form, shown={"SEED": "7"}) for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_is_noticed(form):
    for length in range(len(WRAPPED[form])):
        with pytest.raises(CodecError):
            unwrap(WRAPPED[form][:length])


@pytest.mark.parametrize("form", FORMS)
def test_every_flipped_bit_is_noticed(form):
    for bit in range(8 * len(WRAPPED[form])):
        damaged = bytearray(WRAPPED[form])
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            unwrap(bytes(damaged))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_added_code_is_noticed(where, form):
    text = WRAPPED[form].decode()
    at = {"before": 0, "inside": text.index("S="), "after": len(text)}[where]
    with pytest.raises(CodecError):
        unwrap((text[:at] + "import os\n" + text[at:]).encode())


def forged(packed, form="safe"):
    """A file with the right checksum around any compressed data."""
    return _assembled(packed, "lzma", form, "")


def payload(*parts, modules):
    return "\0".join([loader(modules=modules, folded=False), *parts]).encode()


def test_another_loader_inside_is_noticed():
    text = payload("print(1)", modules=False).replace(b"exec(", b"print('evil');exec(", 1)
    with pytest.raises(CodecError, match="loader was altered"):
        unwrap(forged(lzma.compress(text, lzma.FORMAT_ALONE)))


@pytest.mark.parametrize("form", FORMS)
def test_a_decompression_bomb_stays_small(form):
    compressor = lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=0)
    zeros = bytes(MAX_PAYLOAD)
    bomb = b"".join(compressor.compress(zeros) for _ in range(8)) + compressor.flush()
    del zeros
    tracemalloc.start()
    with pytest.raises(CodecError, match="more than"):
        unwrap(forged(bomb, form))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_PAYLOAD


def test_a_huge_dictionary_is_not_allocated():
    """2 GiB in the header, far beyond the limit of memory; the content can use 16 MiB of them."""
    packed = bytearray(lzma.compress(payload("name", "x = 1", "main", modules=True), lzma.FORMAT_ALONE))
    honest = unwrap(forged(bytes(packed)))
    packed[1:5] = (1 << 31).to_bytes(4, "little")
    assert unwrap(forged(bytes(packed))) == honest


@pytest.mark.parametrize(
    "parts",
    [
        ["name", ""],
        ["../../evil", "x = 1", "main"],
        ["a", "", "a", "", "main"],
        ["__main__", "x", "main"],
        ["", "x", "main"],
    ],
)
def test_impossible_contents_are_refused(parts):
    with pytest.raises(CodecError, match="damaged list"):
        unwrap(forged(lzma.compress(payload(*parts, modules=True), lzma.FORMAT_ALONE)))


def test_what_is_no_text_is_refused():
    with pytest.raises(CodecError, match="is not text"):
        unwrap(forged(lzma.compress(b"\xff", lzma.FORMAT_ALONE)))


def test_bytes_left_over_are_refused():
    with pytest.raises(CodecError, match="left over"):
        unwrap(forged(lzma.compress(payload("", modules=False), lzma.FORMAT_ALONE) + b"more"))


def test_too_much_for_the_dense_form_is_refused(monkeypatch):
    monkeypatch.setattr(base125, "MAX_DIGITS", 200)
    wrap("x = 1\n", {})
    with pytest.raises(InputError, match="too many for the dense form; use --form safe"):
        wrap("x = 1\n", {}, form="dense")


def test_brotli_is_used_where_the_script_needs_it_anyway():
    text = (ROOT / "codec" / "decoder.py").read_text()
    needs, tries = f"import brotli\n{text}", f"try:\n    import brotli\nexcept ImportError:\n    pass\n{text}"
    for main, packed_by in ((needs, b'"brotli"'), (tries, b'"lzma"')):
        for form in FORMS:
            data = wrap(main, {}, form=form)
            assert packed_by in data
            assert unwrap(data) == {MAIN: main}


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
        published = lzma.compress(payload(text, modules=False), lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME)
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


@pytest.mark.parametrize("modules", [{}, MODULES])
def test_a_script_may_show_an_error_that_it_caught(tmp_path, modules):
    main = """\
import sys
def fails():
    raise ValueError("caught")
try:
    fails()
except ValueError as error:
    sys.excepthook(type(error), error, error.__traceback__)
    sys.excepthook(type(error), error, None)
print("goes on")
"""
    done = run(tmp_path, main, modules)
    assert (done.returncode, done.stdout) == (0, "goes on\n")
    assert "line 3, in fails\n    raise ValueError" in done.stderr
    assert "line 5, in <module>" in done.stderr
    assert done.stderr.count("ValueError: caught") == 2


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


@pytest.mark.parametrize("form", ["safe", pytest.param("dense", marks=pytest.mark.slow)])
def test_torch_compile_sees_carried_functions(tmp_path, form):
    main = """\
import torch
from pack_b.tool import double
@torch.compile(backend="eager", fullgraph=True)
def step(x):
    return double(x) + 1
print(step(torch.ones(2)).tolist())
"""
    done = run(tmp_path, main, form=form)
    assert done.stdout == "[3.0, 3.0]\n", done.stderr


@pytest.mark.parametrize("name", ["coding", "encoding", "my_coding"])
def test_a_shown_line_cannot_set_the_encoding(name):
    """`# coding=raw_unicode_escape` in line 2 would let a later comment hold code that nobody sees."""
    with pytest.raises(InputError, match="encoding of the file"):
        wrap("x = 1\n", {}, shown={name: "utf-8"})
    forged = wrap("x = 1\n", {}, shown={"X": "utf-8"}).replace(b"# X=", f"# {name}=".encode())
    with pytest.raises(CodecError, match="altered"):
        unwrap(forged)
