"""Which modules travel with a script."""

import ast
import subprocess
import sys
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from codec.errors import InputError
from packager.reference import Training, reference_bundle
from packager.script import bundle as bundling
from packager.script.bundle import DECLARED, bundle
from packager.template import EVAL_ONLY, FULL
from tests.conftest import ROOT


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules of a package `golfpack` that may be carried; returns the writer."""
    monkeypatch.setattr(bundling, "CARRIED", ("golfpack",))
    monkeypatch.setattr(bundling, "OURS", ("golfpack", "pgolf"))
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "golfpack"
    folder.mkdir()
    # Following imports must not run the package.
    (folder / "__init__.py").write_text("raise SystemExit('imported')\n")

    def write(**modules):
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)

    return write


def test_modules_come_after_what_they_import(package):
    package(
        top="from golfpack.left import a\nfrom golfpack.right import b\n",
        left="from golfpack.base import c\nimport numpy as np\na = 1\n",
        right="def b():\n    from golfpack.base import c\n",
        base="import math\nc = 2\n",
    )
    found = bundle("import torch.nn as nn\nfrom golfpack.top import a, b as x\n", "main.py")
    assert list(found.modules) == ["golfpack.base", "golfpack.left", "golfpack.right", "golfpack.top"]
    assert found.modules["golfpack.base"] == "import math\nc = 2\n"
    assert found.requires == ("numpy", "torch")


def test_works_from_a_zip_file(tmp_path, monkeypatch):
    monkeypatch.setattr(bundling, "CARRIED", ("zipgolf",))
    monkeypatch.setattr(bundling, "OURS", ("zipgolf",))
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as archive:
        archive.writestr("zipgolf/__init__.py", "")
        archive.writestr("zipgolf/one.py", "x = 'é'\n")
    monkeypatch.syspath_prepend(tmp_path / "wheel.zip")
    assert bundle("from zipgolf.one import x\n", "main.py").modules == {"zipgolf.one": "x = 'é'\n"}


@pytest.mark.parametrize(
    ("main", "message"),
    [
        ("import golfpack.one", "main.py, line 1: imports `golfpack.one` in a form"),
        ("import golfpack", "line 1: imports `golfpack` in a form"),
        ("\nfrom golfpack import one", "line 2: imports `golfpack` in a form"),
        ("from golfpack.one import *", "in a form that cannot be carried"),
        ("from . import one", "relative import"),
        ("from golfpack.missing import x", "`golfpack.missing`, which does not exist"),
        ("from pgolf.console import progress", "`pgolf.console`, which a submission cannot carry"),
        ("from golfpack.hungry import x", "golfpack.hungry, line 1: imports `zstandard`"),
        ("from golfpack.broken import x", "golfpack.broken, line 2: is not valid Python"),
        ("x = = 1", "main.py, line 1: is not valid Python"),
        ("x = '\0'", "is not valid Python"),
    ],
)
def test_errors_say_what_and_where(package, main, message):
    package(
        one="x = 1\n",
        hungry="import zstandard\n",
        broken="\n)\n",
    )
    with pytest.raises(InputError) as caught:
        bundle(main, "main.py")
    assert message in str(caught.value)


def test_a_script_may_need_packages_that_modules_may_not(package):
    package(one="x = 1\n")
    found = bundle("import flash_attn\nfrom golfpack.one import x\n", "main.py")
    assert found.requires == ("flash_attn",)


@pytest.fixture
def beside(tmp_path):
    """Write files into the folder of a script; `bundled(main)` follows its imports there."""
    folder = tmp_path / "beside"
    folder.mkdir()

    def bundled(main, files=None, **options):
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return bundle(main, "main.py", beside=folder, **options)

    return bundled


@pytest.mark.parametrize(
    ("main", "carried"),
    [
        ("import helper", ["helper"]),
        ("import helper as h, tools.maths as m", ["helper", "tools.base", "tools", "tools.maths"]),
        ("from tools import maths", ["tools.base", "tools", "tools.maths"]),
        ("from tools.maths import add", ["tools.base", "tools", "tools.maths"]),
        ("from tools.maths import *", ["tools.base", "tools", "tools.maths"]),
        ("from tools import one", ["tools.base", "tools"]),
        ("import bare.inside", ["bare.inside"]),
        ("from bare import inside", ["bare.inside"]),
        ("def f():\n    import helper", ["helper"]),
        ("try:\n    import helper\nexcept ImportError:\n    helper = None", ["helper"]),
        ("if 1:\n    import helper", ["helper"]),
        ("import importlib\nh = importlib.import_module('helper')", ["helper"]),
        ("import ring_a", ["ring_b", "ring_a"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import helper", []),
        ("import math", []),
    ],
)
def test_siblings_are_carried_in_any_form(beside, main, carried):
    files = {
        "helper.py": "x = 'é'\n".encode("latin-1").join([b"# coding: latin-1\n", b""]),
        "tools/__init__.py": "from .base import one\n",
        "tools/base.py": "one = 1\n",
        "tools/maths.py": "from . import base\nfrom .base import one as uno\ndef add(): pass\n",
        "tools/unused.py": "import nothing_there\n",
        "bare/inside.py": "",
        "math/notes.txt": "",
        "ring_a.py": "import ring_b\n",
        "ring_b.py": "import ring_a\n",
    }
    found = beside(main, files)
    assert list(found.modules) == carried
    assert found.requires == ()
    assert found.modules.get("helper", "# coding: latin-1\nx = 'é'\n") == "# coding: latin-1\nx = 'é'\n"


@pytest.mark.parametrize(
    ("main", "message"),
    [
        ("import no_such_module_xyz", "main.py, line 1: imports `no_such_module_xyz`, which is neither beside"),
        ("def f():\n    from no_such_module_xyz import a", "line 2: imports `no_such_module_xyz`"),
        ("from .helper import x", "line 1: has a relative import outside of a package.*`from helper import`"),
        ("import tools.missing", "imports `tools.missing`, which does not exist beside the script"),
        ("from tools.high import x", "tools.high, line 1: has a relative import"),
        ("import random", "main.py, line 1: imports `random`, a module of Python"),
        ("import stone", "imports `stone`, machine code"),
        ("import foreign", r"foreign\.py: is not Python source"),
        ("import broken", "broken, line 1: is not valid Python"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(beside, main, message):
    files = {
        "helper.py": "",
        "tools/__init__.py": "",
        "tools/high.py": "from ...x import y\n",
        "random.py": "",
        f"stone{EXTENSION_SUFFIXES[0]}": "",
        "foreign.py": b"x = '\xe9'\n",
        "broken.py": "x = = 1\n",
    }
    with pytest.raises(InputError, match=message):
        beside(main, files)


@pytest.mark.parametrize(
    "main",
    [
        "try:\n    import no_such_module_xyz\nexcept ImportError:\n    pass",
        "if 0:\n    import no_such_module_xyz",
        "from contextlib import suppress\nwith suppress(ImportError):\n    import no_such_module_xyz",
    ],
)
def test_what_an_optional_import_lacks_is_not_refused(beside, main):
    assert beside(main).optional == ("no_such_module_xyz",)
    assert beside(main).requires == ()
    assert beside(f"{main}\nimport numpy\nif 1:\n    import numpy").requires == ("numpy",)


def test_output_folders_are_no_modules(beside):
    assert beside("import wandb, torch", {"wandb/run/log.txt": "", "torch/x.py": ""}).requires == ("torch", "wandb")


READ = "Path(__file__).with_name('run.toml').read_text"


@pytest.mark.parametrize("call", ["()", "('utf-8')", "(encoding='utf-8')", "(\n    encoding = 'utf-8'\n)"])
def test_a_text_beside_the_script_becomes_a_literal(beside, call):
    text = "name = 'é\\n'\n\n"
    main = f"from pathlib import Path\na, b = 'ü', {READ}{call}  # here\nc = {READ}{call}\n"
    found = beside(main, {"run.toml": text.encode()}).main
    assert run_names(found) == ("ü", text, text)
    assert "# here" in found
    assert run_names(beside(main, texts={"run.toml": "given"}).main) == ("ü", "given", "given")


def run_names(main):
    names = {}
    exec(main, names)
    return names["a"], names["b"], names["c"]


def test_a_text_that_is_not_there_is_refused_by_name(beside):
    main = f"from pathlib import Path\nx = {READ}()"
    with pytest.raises(InputError, match=r"main\.py, line 2: reads `run\.toml` beside the script"):
        beside(main)
    with pytest.raises(InputError, match=r"run\.toml: is not text"):
        beside(main, {"run.toml": b"\xff"})


def test_a_script_that_reads_code_is_left_as_it_is(beside):
    main = "from pathlib import Path\nn = len(Path(__file__).with_name('main.py').read_text())\n"
    assert beside(main).main == main


def test_the_reference_script_closes_without_importing_torch():
    code = (
        "import sys\nfrom importlib.resources import files\nfrom packager.script.bundle import bundle\n"
        "found = bundle((files('packager') / 'template/eval_gpt.py').read_text(), 'x')\n"
        "print(*found.modules, *found.requires, 'torch' in sys.modules)\n"
    )
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert words[-4:] == ["numpy", "sentencepiece", "torch", "False"]
    assert words.index("codec.errors") < words.index("codec.decoder")
    assert words.index("verify.scoring.windows") < words.index("verify.scoring.sliding")


def test_the_lists_of_shipped_modules_are_what_the_reference_scripts_carry():
    assert tuple(reference_bundle(None).modules) == EVAL_ONLY
    assert tuple(reference_bundle(Training(preset="a preset", recipe="a recipe")).modules) == FULL


@pytest.mark.parametrize("module", FULL)
def test_a_shipped_module_imports_nothing_that_does_not_ship(module):
    allowed = {*sys.stdlib_module_names, *DECLARED}
    for node in ast.walk(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert all(name in FULL or name.partition(".")[0] in allowed for name in names), names
