"""Sources inside self-extracting scripts: every wrapper of the field is read as running it would, and nothing runs."""

import base64
import bz2
import gzip
import io
import lzma
import random
import re
import sys
import tracemalloc
import zlib
from contextlib import redirect_stdout
from unittest.mock import patch

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import EnvironmentLacks, InputError
from codec.storage.decompress import decompress
from packager.script.wrapper import wrap
from tests.conftest import ROOT
from verify.submission.source_layers import MAX_CONTENT, MAX_SOURCE, parsed, read_source, unread, unwrap

HUMAN = "import os\n" + "\n".join(f"value_{i} = {i}" for i in range(300)) + "\nprint('it ran')\n"
DATA = HUMAN.encode()
LZMA1 = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20, "lc": 4, "lp": 0, "pb": 1}]
LZMA2 = [{"id": lzma.FILTER_LZMA2, "preset": 9}]


def b85(data):
    return base64.b85encode(data).decode()


def executed(script):
    """What it prints: the wrapper runs, so the form is one that Python really accepts."""
    printed = io.StringIO()
    with redirect_stdout(printed), patch.dict(sys.modules):
        exec(compile(script, "train_gpt.py", "exec"), {"__name__": "x", "__file__": "train_gpt.py"})
    return printed.getvalue()


def script(modules, expression, literal):
    """`import modules` and exec of an expression in which LITERAL stands for the payload."""
    return f"import {modules}\nexec({expression.replace('LITERAL', repr(literal))})"


def xz(source):
    return script("lzma,base64", "lzma.decompress(base64.b85decode(LITERAL))", b85(lzma.compress(source.encode())))


WIDE = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]


def pieces(between, count=7):
    """The payload as literals, each of them too short to be one."""
    text = b85(zlib.compress(DATA, 9))
    size = -(-len(text) // count)
    return between.join(repr(text[at : at + size]) for at in range(0, len(text), size))


RAW = "L.decompress(B.b85decode(LITERAL),format=L.FORMAT_RAW,filters=[FILTERS])"
RAW_LZMA1 = RAW.replace("FILTERS", "{'id':L.FILTER_LZMA1,'dict_size':1048576,'lc':4,'lp':0,'pb':1}")
RAW_LZMA2 = RAW.replace("FILTERS", "{'id':L.FILTER_LZMA2}")
ZLIB = "zlib.decompress(base64.b85decode(LITERAL))"
WRAPPED = {
    "xz": xz(HUMAN),
    "lzma alone": script(
        "lzma,base64", "lzma.decompress(base64.b85decode(LITERAL))", b85(lzma.compress(DATA, lzma.FORMAT_ALONE))
    ),
    "raw lzma2, as records from April on": script(
        "lzma as L,base64 as B", RAW_LZMA2, b85(lzma.compress(DATA, lzma.FORMAT_RAW, filters=LZMA2))
    ),
    "raw lzma1 with its filters": script(
        "lzma as L,base64 as B", RAW_LZMA1, b85(lzma.compress(DATA, lzma.FORMAT_RAW, filters=LZMA1))
    ),
    "zlib": script("zlib,base64", ZLIB, b85(zlib.compress(DATA, 9))),
    "gzip, base 64": script(
        "gzip,base64", "gzip.decompress(base64.b64decode(LITERAL))", base64.b64encode(gzip.compress(DATA))
    ),
    "raw deflate": script(
        "zlib,base64", "zlib.decompress(base64.b85decode(LITERAL),-15)", b85(zlib.compress(DATA, 9, -15))
    ),
    "bz2, ascii 85": script(
        "bz2,base64", "bz2.decompress(base64.a85decode(LITERAL))", base64.a85encode(bz2.compress(DATA))
    ),
    "brotli": script("brotli,base64", "brotli.decompress(base64.b85decode(LITERAL))", b85(brotli.compress(DATA))),
    "zstd, hex": script(
        "zstandard", "zstandard.decompress(bytes.fromhex(LITERAL))", zstandard.ZstdCompressor().compress(DATA).hex()
    ),
    "raw bytes": script("zlib", "zlib.decompress(LITERAL)", zlib.compress(DATA)),
    "latin-1 text": script("zlib", "zlib.decompress(LITERAL.encode('latin-1'))", zlib.compress(DATA).decode("latin-1")),
    "base 64 of plain text": script("base64", "base64.b64decode(LITERAL)", base64.b64encode(DATA)),
    "plain text": script("os", "LITERAL", HUMAN),
    "compiled": script("zlib,base64", f"compile({ZLIB},'<x>','exec')", b85(zlib.compress(DATA))),
    "compressed twice": script(
        "zlib,lzma", "zlib.decompress(lzma.decompress(LITERAL))", lzma.compress(zlib.compress(DATA))
    ),
    "wrapper in a wrapper": xz(xz(HUMAN)),
    "ours": wrap(HUMAN, {"pack_a.errors": "class E(Exception):\n    pass\n"}).decode(),
    "ours, dense": wrap(HUMAN, {}, form="dense").decode(),
    "ours, dense with capitals": wrap(
        HUMAN, {"pack_a.caps": "NUM_LAYERS = NUM_HEADS = 'NUM_LAYERS'\n" * 9}, form="dense"
    ).decode(),
    "xz with a dictionary of 1 GiB": script(
        "lzma,base64", "lzma.decompress(base64.b85decode(LITERAL))", b85(lzma.compress(DATA, filters=WIDE))
    ),
    "lzma alone with a dictionary of 1 GiB": script(
        "lzma,base64",
        "lzma.decompress(base64.b64decode(LITERAL))",
        base64.b64encode(lzma.compress(DATA, lzma.FORMAT_ALONE, filters=[{**WIDE[0], "id": lzma.FILTER_LZMA1}])),
    ),
    "xz -9, base 64 in lines": script(
        "lzma,base64", "lzma.decompress(base64.b64decode(LITERAL))", base64.encodebytes(lzma.compress(DATA, preset=9))
    ),
    "base 32": script(
        "zlib,base64", "zlib.decompress(base64.b32decode(LITERAL))", base64.b32encode(zlib.compress(DATA))
    ),
    "a sum of literals": script("zlib,base64", f"zlib.decompress(base64.b85decode({pieces(' + ')}))", ""),
    "a join of literals": script("zlib,base64", f"zlib.decompress(base64.b85decode(''.join([{pieces(', ')}])))", ""),
    "a sum of names": f"import zlib,base64\nA = {pieces(chr(10) + 'B = ', 2)}\n"
    "exec(zlib.decompress(base64.b85decode(A + B)))",
    "a join of a named list": f"import zlib,base64\nA = ({pieces(', ')})\n"
    "exec(zlib.decompress(base64.b85decode(''.join(A))))",
    "settings before the payload": "VOCAB_SIZE=8192;DATA='./data'\n" + xz(HUMAN),
}


@pytest.mark.parametrize("form", WRAPPED)
def test_every_form_gives_the_source_without_running_it(form, capsys):
    found = unwrap(WRAPPED[form])
    assert capsys.readouterr().out == ""
    assert found[-1].text == HUMAN
    assert found[-1].name == ""
    assert found[-1].depth == (2 if form == "wrapper in a wrapper" else 1)
    assert executed(WRAPPED[form]) == "it ran\n"


def test_modules_of_our_wrapper_have_their_names():
    assert [(layer.name, layer.form) for layer in unwrap(WRAPPED["ours"])] == [
        ("<loader>", "base85 lzma"),
        ("pack_a.errors", "base85 lzma"),
        ("", "base85 lzma"),
    ]
    assert [(layer.name, layer.form, layer.text) for layer in unwrap(WRAPPED["ours, dense with capitals"])][1:] == [
        ("pack_a.caps", "base125 lzma", "NUM_LAYERS = NUM_HEADS = 'NUM_LAYERS'\n" * 9),
        ("", "base125 lzma", HUMAN),
    ]


@given(st.lists(st.sampled_from(["b85", "b64", "hex", "zlib", "lzma", "bz2"]), min_size=1, max_size=4))
@settings(max_examples=25)
def test_steps_in_any_order_are_undone(steps):
    make = {
        "b85": base64.b85encode,
        "b64": base64.b64encode,
        "hex": lambda data: data.hex().encode(),
        "zlib": zlib.compress,
        "lzma": lzma.compress,
        "bz2": bz2.compress,
    }
    data = DATA
    for step in steps:
        data = make[step](data)
    assert [layer.text for layer in unwrap(f"run({data!r})")] == [HUMAN]


def test_our_wrapper_with_brotli_is_read():
    text = "import brotli\n" + (ROOT / "codec" / "decoder.py").read_text()
    loader, script = unwrap(wrap(text, {}).decode())
    assert (loader.name, script.form, script.text) == ("<loader>", "base85 brotli", text)


def test_a_part_that_hides_before_the_script_is_read_too():
    """`first, script = payload.split(NUL); exec(first); exec(script)` runs both."""
    first = "import subprocess\n" + "x = 1\n" * 9
    payload = base64.b85encode(lzma.compress(f"{first}\0{HUMAN}".encode())).decode()
    parts = f"lzma.decompress(base64.b85decode({payload!r})).decode().split(chr(0))"
    wrapper = f"import lzma,base64\nA,B={parts}\nexec(A);exec(B)\n"
    assert [layer.text for layer in unwrap(wrapper)] == [first, HUMAN]


def test_another_payload_under_our_header_is_refused():
    """Same loader, same length of everything but the payload: the first line no longer names what is inside."""
    honest, other = wrap("x = 1\n", {}).decode(), wrap("x = 2\n", {}).decode()
    literal = other.split('b85decode("')[1].split('"')[0]
    forged = honest.replace(honest.split('b85decode("')[1].split('"')[0], literal)
    assert executed(forged) == ""
    with pytest.raises(InputError, match=r"content with CRC .*, its first line names"):
        unwrap(forged)


def test_later_syntax_than_this_python_reads_is_still_source():
    later = f"import sys\ndef f(x):\n    return f'{{x['a']}}'\n{HUMAN}"
    if sys.version_info < (3, 12):
        assert parsed(later) is None
    assert [layer.text for layer in unwrap(xz(later))] == [later]


@pytest.mark.parametrize(
    "source",
    [
        HUMAN,
        f"x = {'A' * 5000!r}",
        f"exec({b85(lzma.compress(random.Random(1).randbytes(500)))!r})",
        f"table = {b85(zlib.compress(str(list(range(2000))).encode()))!r}",
        f"table = {b85(zlib.compress(b'name: value' * 99))!r}",
        f"help = {'a plain text, with import and def in it; ' * 20!r}",
        "x = 'cut" + "A" * 300,
    ],
)
def test_plain_scripts_and_data_are_no_wrappers(source):
    assert unwrap(source) == ()


def compressed_zeros(make, count):
    compressor, noise = make(), random.Random(0).randbytes(500)
    return compressor.compress(noise + bytes(count - 500)) + compressor.flush()


BOMBS = {
    "xz": lzma.LZMACompressor,
    "zlib": zlib.compressobj,
    "bz2": bz2.BZ2Compressor,
    "gzip": lambda: zlib.compressobj(9, zlib.DEFLATED, 31),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_and_stay_small(kind):
    bomb = f"exec({b85(compressed_zeros(BOMBS[kind], 1 << 26))!r})"
    tracemalloc.start()
    with pytest.raises(InputError, match=f"expands beyond {MAX_CONTENT:,} bytes"):
        unwrap(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * MAX_CONTENT


def test_many_literals_together_are_refused():
    part = b85(compressed_zeros(zlib.compressobj, MAX_CONTENT - 1))
    with pytest.raises(InputError, match="expands beyond"):
        unwrap(f"x = {[part] * 6}")


def test_bombs_of_other_compressors_are_refused():
    for data in (brotli.compress(bytes(1 << 25)), zstandard.ZstdCompressor().compress(bytes(1 << 25))):
        with pytest.raises(InputError, match="expands beyond"):
            unwrap(f"exec({data.hex() + ' ' * 200!r})")


def test_giant_sources_are_refused():
    with pytest.raises(InputError, match=f"at most {MAX_SOURCE:,} and"):
        unwrap("x=1\n" * MAX_SOURCE)


def test_deep_nesting_is_not_followed():
    nested = HUMAN
    for _ in range(7):
        nested = xz(nested)
    assert [layer.depth for layer in unwrap(nested)] == [1, 2, 3, 4]
    assert unwrap("x = " + "(" * 1000 + ")" * 1000) == ()


def test_a_brotli_wrapper_without_brotli_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "brotli", None)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'brotli"):
        unwrap(WRAPPED["brotli"])


@pytest.mark.parametrize("codec", ["rot13", "undefined", "zlib", "idna", "punycode", "utf_16", "mbcs", "none_such"])
def test_cookies_that_name_no_text_encoding(codec):
    with pytest.raises(InputError, match="is not Python source"):
        read_source(f"# coding: {codec}\nx = '\xff..{'a' * 99}'\n".encode())


@pytest.mark.parametrize("value", ["-1", "1 << 70", "2**70", "1e999", "'x'", "99999999999999999999999"])
@pytest.mark.parametrize("key", ["preset", "dict_size", "lc"])
def test_impossible_filters_are_no_traceback(key, value):
    filters = f"{{'id': L.FILTER_LZMA2, {key!r}: {value}}}"
    packed = b85(zlib.compress((HUMAN * 3).encode()))  # tried as raw LZMA first
    script = f"import lzma as L\nexec(L.decompress({packed!r}, format=L.FORMAT_RAW, filters=[{filters}]))\n"
    assert unwrap(script)[0].text == HUMAN * 3


@pytest.mark.parametrize("preset", [6, 9, 9 | lzma.PRESET_EXTREME])
@pytest.mark.parametrize("check", [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256])
def test_xz_of_every_preset_and_check(preset, check):
    packed = lzma.compress(DATA, preset=preset, check=check)
    assert unwrap(script("lzma,base64", "lzma.decompress(base64.b85decode(LITERAL))", b85(packed)))[0].text == HUMAN


@pytest.mark.parametrize("encode", [base64.b64encode, base64.b85encode])
def test_a_payload_larger_than_the_source_limit_is_read(encode):
    """Packed data are one node of the syntax tree, however long; code is what a limit is for."""
    rng = random.Random(0)
    large = HUMAN + "".join(f"x{i} = {rng.getrandbits(512)}\n" for i in range(5500))
    assert len(large) < MAX_SOURCE
    text = encode(encode(large.encode())).decode()
    assert len(text) > MAX_SOURCE
    name = encode.__name__.replace("encode", "decode")
    found = unwrap(script("base64", f"base64.{name}(base64.{name}(LITERAL))", text))
    assert [layer.text for layer in found] == [large]
    with pytest.raises(InputError, match=r"characters of code and 0 of packed data, at most 1,048,576"):
        unwrap("x = 1\n" * (MAX_SOURCE // 6 + 1))


def test_what_does_not_open_says_why():
    xz_data = lzma.compress(DATA)
    for data, reason in [
        (xz_data[:-30], r"base85 xz data that does not open \(it ends early\)"),
        (xz_data[:40] + b"damage" + xz_data[46:], r"base85 xz data that does not open \(Corrupt input data\)"),
        (b"\x28\xb5\x2f\xfd" + bytes(range(200)), r"base85 zstd data that does not open"),
        (gzip.compress(DATA)[:-9], r"base85 gzip data that does not open \(it ends early\)"),
        (b"PK\3\4" + bytes(range(200)), "base85 zip archive, which is not read"),
    ]:
        source = script("lzma,base64", "lzma.decompress(base64.b85decode(LITERAL))", b85(data))
        assert unwrap(source) == ()
        assert len(unread(source)) == 1
        assert re.match(reason, unread(source)[0]), unread(source)
    assert unread(xz(HUMAN)) == unread(HUMAN) == ()


@settings(max_examples=30)
@given(st.binary(max_size=3000), st.integers(12, 28), st.sampled_from([0, 6, 9]), st.sampled_from(["xz", "lzma"]))
def test_a_smaller_window_changes_no_content(data, bits, preset, form):
    """Whatever dictionary the header asks for, the content is the same, and no more memory than it can use is taken."""
    filters = [
        {"id": lzma.FILTER_LZMA2 if form == "xz" else lzma.FILTER_LZMA1, "preset": preset, "dict_size": 1 << bits}
    ]
    try:
        packed = lzma.compress(data, lzma.FORMAT_XZ if form == "xz" else lzma.FORMAT_ALONE, filters=filters)
    except MemoryError:
        return
    assert decompress(packed, form, 4000, memory=1 << 20) == data


@pytest.mark.parametrize(
    "use",
    [
        "exec(''.join([" + "A," * 40_000 + "]))\n",
        "exec(A + A)\n" * 400,
        "B = [" + "''," * 30_000 + "x]\n" + "''.join(B)\n" * 400,
    ],
    ids=["4 GB in one join", "80 MB in sums", "12 million pieces of no literal"],
)
def test_names_that_multiply_are_bounded(use):
    """A name stands for its literal wherever it is used, so a small script could ask for any amount of text."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"expands beyond 67,108,864 bytes in all"):
            unwrap("A = '" + "\u00a7!" * 50_000 + "'\n" + use)
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()


def test_a_name_that_stands_for_itself_ends():
    assert [layer.text for layer in unwrap("from other import B\nB = ''.join(B)\n" + xz(HUMAN))] == [HUMAN]
