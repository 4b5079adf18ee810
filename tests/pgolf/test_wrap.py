"""`pgolf wrap` as a user runs it: siblings travel, packed scripts are unpacked first, odd input is one sentence."""

import base64
import errno
import json
import lzma
import os
import subprocess
import sys

import pytest

from codec.storage import atomic_files
from packager.script.wrapper import MAIN, unwrap
from tests.packager.field_scripts import field_recipe, field_script


@pytest.fixture
def write(tmp_path):
    """Write files into a folder; returns it."""

    def written(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return written


def run_alone(script, folder):
    """In a folder where nothing lies beside it."""
    folder.mkdir()
    (folder / "train_gpt.py").write_bytes(script.read_bytes())
    return subprocess.run(
        [sys.executable, "-I", "train_gpt.py"], cwd=folder, capture_output=True, text=True, timeout=60
    )


SIBLINGS = {
    "main.py": """\
import multiprocessing
import helper
import tools.maths as m
from tools import names
from bare.inside import where
import ring_a
try:
    import missing_xyz
except ImportError:
    missing_xyz = None
if __name__ == "__main__":
    print(helper.five(), m.double(4), names.NAME, where(), ring_a.both(), missing_xyz)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(m.double, [1, 2]))
""",
    "helper.py": "import dataclasses\ndef five(): return 5\n",
    "tools/__init__.py": "from .maths import double\nfrom . import names\n__all__ = ['double']\n",
    "tools/maths.py": "from .names import FACTOR\ndef double(x): return FACTOR * x\n",
    "tools/names.py": "NAME, FACTOR = __name__, 2\n",
    "bare/inside.py": "def where(): return __package__\n",
    "ring_a.py": "import ring_b\ndef one(): return 1\ndef both(): return ring_b.two()\n",
    "ring_b.py": "import ring_a\ndef two(): return ring_a.one() + 1\n",
}


@pytest.mark.parametrize("form", ["safe", "dense"])
def test_siblings_packages_and_circles_travel(pgolf, write, tmp_path, form):
    folder = write(SIBLINGS)
    done = pgolf("wrap", folder / "main.py", "-o", folder / "out.py", "--form", form, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    modules = ["helper", "tools.names", "tools.maths", "tools", "bare.inside", "ring_b", "ring_a"]
    assert sorted(said["modules"]) == sorted(modules)
    assert said["packed_bytes"] == (folder / "out.py").stat().st_size
    assert said["requirements"] == ["# missing_xyz: no installed distribution provides it"]
    alone = run_alone(folder / "out.py", tmp_path / "alone")
    assert (alone.stdout, alone.stderr) == ("5 8 tools.names bare 2 None\n[2, 4]\n", "")
    assert pgolf("inspect", folder / "out.py", "--unwrap", folder / "sources").returncode == 0
    again = run_alone(folder / "sources" / "train_gpt.py", folder / "sources" / "in_it")
    assert "No module named 'helper'" in again.stderr  # -I: a folder's modules are not found, unlike carried ones
    command = [sys.executable, folder / "sources" / "train_gpt.py"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == alone.stdout


def test_says_what_it_is_made_of_and_shows_settings(pgolf, write):
    folder = write({"a.py": field_script(50_000)})
    done = pgolf("wrap", "a.py", "--show", "VOCAB_SIZE", "--show", "DATA_PATH", cwd=folder)
    assert done.returncode == 0, done.stderr
    for words in ("sources", "packed, safe", "by the field's recipe", "0.9", "needs numpy==", "written to a.packed.py"):
        assert words in done.stdout
    lines = (folder / "a.packed.py").read_text().splitlines()
    assert lines[1:3] == ["# VOCAB_SIZE=1024", "# DATA_PATH='./data/datasets/fineweb10B_sp1024'"]


def test_a_packed_script_is_unpacked_first(pgolf, write):
    text = field_script(50_000)
    folder = write({"a.py": text, "field.py": field_recipe(text)})
    assert pgolf("wrap", "a.py", "-o", "once.py", cwd=folder).returncode == 0
    again = pgolf("wrap", "once.py", "-o", "twice.py", cwd=folder)
    assert "once.py was packed (this toolkit's form): unpacked first, and wrapped anew" in again.stdout
    sizes = {name: (folder / name).stat().st_size for name in ("once.py", "twice.py")}
    assert sizes["twice.py"] <= sizes["once.py"] + 8
    theirs = pgolf("wrap", "field.py", "-o", "anew.py", cwd=folder)
    assert "field.py was packed (base85 lzma): unpacked first" in theirs.stdout
    assert "class Hyperparameters" in unwrap((folder / "anew.py").read_bytes())[MAIN]


def test_a_wrapper_that_does_more_is_refused(pgolf, write):
    wrapped = b"import os\nos.environ['SEED'] = '7'\n" + field_recipe(field_script(50_000))
    done = pgolf("wrap", write({"a.py": wrapped}) / "a.py")
    assert (done.returncode, done.stdout) == (3, "")
    assert (
        "a.py, line 2: is packed, and its wrapper does more than to unpack it: `os.environ['SEED'] = '7'`"
        in done.stderr
    )


def test_a_script_that_reads_its_own_file_is_told_so_and_runs(pgolf, write, tmp_path):
    read = "print(len(Path(__file__).read_text('utf-8')), os.path.getsize(__file__))"
    main = f"import os\nfrom pathlib import Path\n{read}\n"
    folder = write({"a.py": main})
    for form in ("safe", "dense"):
        done = pgolf("wrap", "a.py", "-o", f"{form}.py", "--form", form, cwd=folder)
        size = (folder / f"{form}.py").stat().st_size
        assert f"note: reads its own file (line 3); there it finds the {size} packed bytes" in done.stdout
        assert run_alone(folder / f"{form}.py", tmp_path / form).stdout == f"{size} {size}\n"


ODD = {
    "syntax.py": (b"x = 1\ndef f(:\n", 3, "syntax.py, line 2: is not valid Python"),
    "relative.py": (b"from .helper import x\n", 3, "relative.py, line 1: has a relative import outside of a package"),
    "lone.py": (b"import no_such_sibling_xyz\n", 3, "line 1: imports `no_such_sibling_xyz`, which is neither beside"),
    "latin.py": (b"x = '\xe9'\n", 3, "latin.py: is not Python source"),
    "empty.py": (b"", 3, "empty.py: is empty"),
    "lines.py": (b"x=1\n" * 2_000_000, 3, "lines.py: has 8,000,000 characters, at most 1,048,576 are read"),
    "newer.py": (b"type X = int\n", 3, "newer.py, line 1: is not valid Python"),
    "text.py": (b"from pathlib import Path\nx = Path(__file__).with_name('a.toml').read_text()\n", 3, "reads `a.toml`"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_input_is_one_sentence_and_nothing_is_written(pgolf, write, name):
    content, code, message = ODD[name]
    folder = write({name: content})
    done = pgolf("wrap", name, cwd=folder)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(folder) == [name]


def test_a_file_that_is_there_is_replaced_only_on_purpose(pgolf, write):
    folder = write({"a.py": "print(1)\n", "b.py": "print(2)\n"})
    assert "exists; choose another name" in pgolf("wrap", "a.py", "-o", "b.py", cwd=folder).stderr
    assert (folder / "b.py").read_text() == "print(2)\n"
    assert pgolf("wrap", "a.py", "-o", "b.py", "--force", cwd=folder).returncode == 0
    assert unwrap((folder / "b.py").read_bytes()) == {MAIN: "print(1)"}
    same = pgolf("wrap", "a.py", "-o", "a.py", "--force", cwd=folder)
    assert (same.returncode, same.stderr) == (2, "Error: a.py: is the script itself; choose another name with -o\n")


def test_a_full_disk_leaves_nothing(pgolf, write, monkeypatch):
    folder = write({"a.py": "print(1)\n"})

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    done = pgolf("wrap", "a.py", "-o", "b.py", cwd=folder)
    assert (done.returncode, done.stderr) == (
        4,
        "Error: b.py: cannot be written (No space left on device); make room on this machine\n",
    )
    assert os.listdir(folder) == ["a.py"]


def test_the_shared_case_carries_its_sibling(pgolf, shared, tmp_path):
    done = pgolf("wrap", shared / "cases/scripts/relimport.py", "-o", tmp_path / "out.py", "--json")
    said = json.loads(done.stdout)
    assert said["modules"] == ["helper_module"]
    assert any(line.startswith("# flash_attn_interface: ") for line in said["requirements"])
    assert not any("helper_module" in line for line in said["requirements"])


@pytest.mark.parametrize("more", ["os.environ.setdefault('ITERATIONS', '20000')", "T0 = __import__('time').time()"])
def test_what_another_wrapper_does_besides_is_not_lost(pgolf, tmp_path, more):
    text = "print('unpacked')\n" + "".join(f"value_{number} = {number * 7919}\n" for number in range(200))
    literal = base64.b85encode(lzma.compress(text.encode())).decode()
    for line, code in ((f"{more}\n", 3), ("", 0)):
        wrapper = f"import os,lzma,base64\n{line}exec(lzma.decompress(base64.b85decode({literal!r})))\n"
        (tmp_path / "packed.py").write_text(wrapper)
        done = pgolf("wrap", "packed.py", "-o", f"out{code}.py", cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert ("does more than to unpack it" in done.stderr) == bool(code)


def test_a_sibling_may_be_called_like_a_package_of_the_toolkit(pgolf, tmp_path):
    (tmp_path / "trainer.py").write_text("x = 5\n")
    (tmp_path / "main.py").write_text("from trainer import x\nprint(x)\n")
    done = pgolf("wrap", "main.py", "-o", "out.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "carries trainer" in done.stdout


def test_a_module_beside_the_script_is_carried_and_never_required(pgolf, shared, tmp_path):
    """The case of ../shared, and the same without the module: then it is refused by name."""
    for name in ("relimport.py", "helper_module.py"):
        (tmp_path / name).write_bytes((shared / "cases/scripts" / name).read_bytes())
    done = pgolf("wrap", tmp_path / "relimport.py", "-o", tmp_path / "train_gpt.py", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not any("helper" in line for line in found["requirements"])
    (tmp_path / "helper_module.py").unlink()
    ran = subprocess.run(
        [sys.executable, "-c", RUNS_PACKED, tmp_path / "train_gpt.py"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "5\n"), ran.stderr
    done = pgolf("wrap", tmp_path / "relimport.py", "-o", tmp_path / "again.py")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "relimport.py, line 1: imports `helper_module`, which is neither beside the script nor" in done.stderr


RUNS_PACKED = """
import runpy, sys, types
sys.modules["triton"] = types.ModuleType("triton")
sys.modules["flash_attn_interface"] = types.SimpleNamespace(flash_attn_func=None)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize("name", ["wrap", "inspect"])
def test_a_payload_that_does_not_open_is_refused_with_its_reason(pgolf, tmp_path, name):
    text = "".join(f"value_{i} = {i * i}\n" for i in range(999))
    payload = base64.b85encode(lzma.compress(text.encode(), preset=9)[:-50]).decode()
    (tmp_path / "s.py").write_text(f"import lzma,base64\nexec(lzma.decompress(base64.b85decode({payload!r})))\n")
    done = pgolf(name, tmp_path / "s.py")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("Error: ")
    assert "s.py: is packed, and holds base85 xz data that does not open (it ends early)" in done.stderr
