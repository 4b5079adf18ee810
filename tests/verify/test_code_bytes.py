import base64
import lzma
import zlib

import pytest

from codec.errors import InputError
from packager.wrapper import wrap
from verify.code_bytes import count, import_closure, unexpected, unwrap

HUMAN = "import os\nimport helper\n" + "\n".join(f"value_{i} = {i}" for i in range(300)) + "\n"


def b85(data: bytes) -> str:
    return f'import base64,lzma,zlib;exec(lzma.decompress(base64.b85decode("{base64.b85encode(data).decode()}")))'


def raw_lzma2(text: bytes) -> bytes:
    return lzma.compress(text, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}])


WRAPPED = {
    "xz": b85(lzma.compress(HUMAN.encode())),
    "lzma alone": b85(lzma.compress(HUMAN.encode(), lzma.FORMAT_ALONE)),
    "raw lzma2 as in the field": b85(raw_lzma2(HUMAN.encode())),
    "zlib": b85(zlib.compress(HUMAN.encode())),
    "base 64 bytes": f"exec(__import__('x')({base64.b64encode(lzma.compress(HUMAN.encode()))!r}))",
    "raw bytes literal": f"exec(__import__('x')({zlib.compress(HUMAN.encode())!r}))",
    "ours": wrap(HUMAN, {"codec.errors": "class E(Exception):\n    pass\n"}).decode(),
    "twice": b85(lzma.compress(b85(lzma.compress(HUMAN.encode())).encode())),
}


@pytest.fixture
def folder(tmp_path):
    """A submission with local modules, one of them imported only by another one."""
    files = {
        "train_gpt.py": "import json, helper\nfrom package.deep import thing\nfrom package import sibling\n",
        "helper.py": "import second\n",
        "second.py": "import helper\n",
        "unused.py": "x = 1\n",
        "package/__init__.py": "from . import inner\n",
        "package/deep.py": "from .inner import y\n",
        "package/inner.py": "y = 1\n",
        "package/sibling.py": "",
        "package/other.py": "z = 1\n",
        "kernel.cu": "// twelve b.\n",
        "model.bin": "x" * 1000,
        "README.md": "hello",
        "train.log": "step 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def names(folder):
    return {path.relative_to(folder).as_posix() for path in import_closure(folder)}


def test_the_closure_follows_local_imports_only(folder):
    assert names(folder) == {
        "train_gpt.py",
        "helper.py",
        "second.py",
        "package/__init__.py",
        "package/deep.py",
        "package/inner.py",
        "package/sibling.py",
    }


def test_sizes_are_those_on_disk(folder):
    counted = count(folder, folder / "model.bin", 12_345)
    size = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    closure = sum(size[name] for name in names(folder))
    assert counted.main_file == size["train_gpt.py"]
    assert counted.import_closure == closure
    assert counted.all_code == closure + size["unused.py"] + size["package/other.py"] + size["kernel.cu"]
    assert (counted.artifact, counted.judged_total, counted.cap) == (1000, closure + 1000, 12_345)


def test_a_local_extension_module_counts(folder):
    (folder / "fast.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF" + bytes(96))
    before = count(folder, folder / "model.bin", 1).import_closure
    (folder / "second.py").write_text("import fast \n")
    after = count(folder, folder / "model.bin", 1).import_closure
    assert after == before + 100 + len("import fast \n") - len("import helper\n")


def test_unexpected_files_are_listed(folder):
    (folder / "weights.npz").write_bytes(b"1")
    assert unexpected(folder, folder / "model.bin") == ["kernel.cu", "package/other.py", "unused.py", "weights.npz"]


@pytest.mark.parametrize("name", ["link.py", "package/link"])
def test_links_are_refused(folder, name):
    (folder / name).symlink_to(folder / "helper.py")
    with pytest.raises(InputError, match="plain files only"):
        count(folder, folder / "model.bin", 1)


@pytest.mark.parametrize("form", WRAPPED)
def test_wrapped_source_is_read_without_running_it(folder, form):
    (folder / "train_gpt.py").write_text(WRAPPED[form])
    assert HUMAN in unwrap(WRAPPED[form])
    assert names(folder) == {"train_gpt.py", "helper.py", "second.py"}
    counted = count(folder, folder / "model.bin", 1)
    assert counted.computed_wrapped == counted.main_file == len(WRAPPED[form])


def test_computed_wrapper_runs_and_is_what_is_counted(folder):
    script = "import sys\n" + "".join(f"total_{i} = {i}\n" for i in range(500)) + "answer = 42\n"
    (folder / "train_gpt.py").write_text(script)
    packed = base64.b85encode(lzma.compress(script.encode(), lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME))
    wrapper = f'import lzma,base64;exec(lzma.decompress(base64.b85decode("{packed.decode()}")))\n'
    namespace = {}
    exec(wrapper, namespace)
    assert namespace["answer"] == 42
    assert count(folder, folder / "model.bin", 1).computed_wrapped == len(wrapper)


def test_plain_scripts_and_text_are_not_wrappers():
    assert unwrap(HUMAN) == []
    assert unwrap(f"x = {'A' * 5000!r}") == []
    assert unwrap(b85(lzma.compress(b"\xff\xfe" * 500))) == []


def test_a_decompression_bomb_stays_small():
    bomb = b85(lzma.compress(bytes(1 << 26)))
    assert unwrap(bomb) == []


def test_unreadable_scripts_are_refused(folder):
    (folder / "helper.py").write_text("def broken(:\n")
    with pytest.raises(InputError, match="not Python source"):
        import_closure(folder)
    (folder / "helper.py").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="not Python source"):
        import_closure(folder)
