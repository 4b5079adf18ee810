import base64
import lzma

import pytest

from codec.errors import InputError
from packager.script.wrapper import wrap
from verify.submission.byte_count import count, import_closure, unexpected


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
    counted = count(folder, folder / "model.bin", 1, settings=7)
    assert counted.names == len(".cpython-311-x86_64-linux-gnu.so")
    assert counted.judged_total == counted.shipped + counted.names + 7 == after + 1000 + counted.names + 7


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("fast.so", b"", "is no shared object"),
        ("fast.abi3.so", b"\x7fELF", "is no shared object"),
        ("fast.so", b"MZ" + bytes(100), "is no shared object"),
        ("second.so", b"\x7fELF" + bytes(100), "for one module"),
        ("package.py", b"", "for one module"),
    ],
)
def test_files_that_only_say_something_by_being_there_are_refused(folder, name, content, words):
    (folder / name).write_bytes(content)
    (folder / "helper.py").write_text("import second, fast\n")
    with pytest.raises(InputError, match=words):
        import_closure(folder)


def test_a_name_that_no_python_imports_is_no_module(folder):
    (folder / "fast.c3BhcmUgYnl0ZXM.so").write_bytes(b"")
    (folder / "helper.py").write_text("import fast\n")
    assert "fast.c3BhcmUgYnl0ZXM.so" not in names(folder)
    assert "fast.c3BhcmUgYnl0ZXM.so" in unexpected(folder, folder / "model.bin")


def test_files_are_not_without_number(folder):
    for number in range(256):
        (folder / f"m{number}.py").write_bytes(b"")
    (folder / "train_gpt.py").write_text("import " + ", ".join(f"m{number}" for number in range(256)))
    with pytest.raises(InputError, match="257 files of code"):
        import_closure(folder)


@pytest.mark.parametrize("script", ["from .. import other", "from ...deep.er import thing", "from ..helper import x"])
def test_an_import_from_outside_is_one_sentence(folder, script):
    (folder.parent / "helper.py").write_text("secret = 1\n")
    (folder / "train_gpt.py").write_text(f"import os\n{script}\n")
    with pytest.raises(InputError, match="line 2 imports from outside the submission's folder"):
        import_closure(folder)
    (folder / "train_gpt.py").write_text("import package.deep\n")
    (folder / "package" / "deep.py").write_text(f"import os\n{script.replace('..', '...', 1)}\n")
    with pytest.raises(InputError, match="line 2 imports from outside"):
        import_closure(folder)


def test_names_longer_than_names_can_be_are_no_files(folder):
    long = "ü" * 190
    (folder / "train_gpt.py").write_text(f"import {'a' * 300}\nopen('{long}.py')\n")
    assert names(folder) == {"train_gpt.py"}


def test_unexpected_files_are_listed(folder):
    (folder / "weights.npz").write_bytes(b"1")
    assert unexpected(folder, folder / "model.bin") == ["kernel.cu", "package/other.py", "unused.py", "weights.npz"]


@pytest.mark.parametrize("name", ["link.py", "package/link"])
def test_links_are_refused(folder, name):
    (folder / name).symlink_to(folder / "helper.py")
    with pytest.raises(InputError, match="plain files only"):
        count(folder, folder / "model.bin", 1)


def packed(source):
    literal = base64.b85encode(lzma.compress(source.encode())).decode()
    return f'import base64,lzma;exec(lzma.decompress(base64.b85decode("{literal}")))\n'


PADDED = "import os\nimport helper\n" + "".join(f"value_{i} = {i}\n" for i in range(300))
LATER = PADDED + "def f():\n    return f'{os.environ['A']}'\n"  # Python 3.12


@pytest.mark.parametrize(
    "wrapped",
    [packed(PADDED), packed(packed(PADDED)), packed(LATER), wrap(PADDED, {"a.b": "class E: pass\n"}).decode()],
)
def test_imports_of_wrapped_source_count(folder, wrapped):
    (folder / "train_gpt.py").write_text(wrapped)
    assert names(folder) == {"train_gpt.py", "helper.py", "second.py"}
    counted = count(folder, folder / "model.bin", 1)
    assert counted.computed_wrapped == counted.main_file == len(wrapped)


@pytest.mark.parametrize(
    "script",
    [
        "exec(open('unused.py').read())",
        "import pathlib\nexec(pathlib.Path('unused.py').read_text())",
        "import runpy\nrunpy.run_path('./unused.py')",
        "import ctypes, os\nLIBRARY = 'kernel.cu'",
    ],
)
def test_code_that_is_opened_by_name_counts(folder, script):
    """A merged record of April 6 ships a main file of 74 bytes that execs a sibling of 80 kB."""
    (folder / "train_gpt.py").write_text(script)
    assert names(folder) == {"train_gpt.py", "kernel.cu" if "kernel" in script else "unused.py"}


def test_all_four_counts_are_told_apart_with_the_one_that_is_judged(folder):
    (folder / "train_gpt.py").write_text("import helper\n" + "".join(f"value_{i} = {i}\n" for i in range(5000)))
    counted = count(folder, folder / "model.bin", 40_000)
    assert counted.computed_wrapped < counted.main_file < counted.import_closure < counted.all_code
    assert counted.judged_total == getattr(counted, counted.judged) + counted.artifact > counted.cap
    assert "what the script can run" in counted.why
    assert counted.others == f"; counted otherwise: computed_wrapped {counted.computed_wrapped + 1000:,}"
    assert count(folder, folder / "model.bin", 10**9).others == ""


def test_computed_wrapper_runs_and_is_what_is_counted(folder):
    script = "import sys\n" + "".join(f"total_{i} = {i}\n" for i in range(500)) + "answer = 42\n"
    (folder / "train_gpt.py").write_text(script)
    packed = base64.b85encode(lzma.compress(script.encode(), lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME))
    wrapper = f'import lzma,base64;exec(lzma.decompress(base64.b85decode("{packed.decode()}")))\n'
    namespace = {}
    exec(wrapper, namespace)
    assert namespace["answer"] == 42
    assert count(folder, folder / "model.bin", 1).computed_wrapped == len(wrapper)


def test_unreadable_scripts_are_refused(folder):
    (folder / "helper.py").write_text("def broken(:\n")
    with pytest.raises(InputError, match="not Python source"):
        import_closure(folder)
    (folder / "helper.py").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="not Python source"):
        import_closure(folder)


@pytest.mark.parametrize("folders", [False, True])
def test_a_folder_with_very_many_entries_is_refused(folder, folders):
    """Whether one of a million names is there is a bit that nobody counts."""
    for number in range(600):
        path = folder / f"{number}.log"
        path.mkdir() if folders else path.touch()
    with pytest.raises(InputError, match="more than 512 files and folders"):
        count(folder, folder / "model.bin", 1)
