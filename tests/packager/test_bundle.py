"""Which modules travel with a script."""

import ast
import subprocess
import sys
import zipfile

import pytest

from codec.errors import InputError
from packager.script import bundle as bundling
from packager.script.bundle import DECLARED, bundle
from packager.template import SHIPPED
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
        ("from golfpack.hungry import x", "golfpack.hungry, line 1: imports `safetensors`"),
        ("from golfpack.circle import x", "in a circle: golfpack.circle -> golfpack.other -> golfpack.circle"),
        ("from golfpack.broken import x", "golfpack.broken, line 2: is not valid Python"),
        ("x = = 1", "main.py, line 1: is not valid Python"),
        ("x = '\0'", "is not valid Python"),
    ],
)
def test_errors_say_what_and_where(package, main, message):
    package(
        one="x = 1\n",
        hungry="import safetensors\n",
        broken="\n)\n",
        circle="from golfpack.other import y\n",
        other="from golfpack.circle import x\n",
    )
    with pytest.raises(InputError) as caught:
        bundle(main, "main.py")
    assert message in str(caught.value)


def test_a_script_may_need_packages_that_modules_may_not(package):
    package(one="x = 1\n")
    found = bundle("import flash_attn\nfrom golfpack.one import x\n", "main.py")
    assert found.requires == ("flash_attn",)


def test_the_reference_script_closes_without_importing_torch():
    code = (
        "import sys\nfrom importlib.resources import files\nfrom packager.script.bundle import bundle\n"
        "found = bundle((files('packager') / 'template/train_gpt.py').read_text(), 'x')\n"
        "print(*found.modules, *found.requires, 'torch' in sys.modules)\n"
    )
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert words[-4:] == ["numpy", "sentencepiece", "torch", "False"]
    assert words.index("codec.errors") < words.index("codec.decoder")
    assert words.index("verify.scoring.windows") < words.index("verify.scoring.sliding")


def test_the_list_of_shipped_modules_is_what_the_reference_script_carries():
    script = (ROOT / "packager" / "template" / "train_gpt.py").read_text()
    assert tuple(bundle(script, "train_gpt.py").modules) == SHIPPED


@pytest.mark.parametrize("module", SHIPPED)
def test_a_shipped_module_imports_nothing_that_does_not_ship(module):
    allowed = {*sys.stdlib_module_names, *DECLARED}
    for node in ast.walk(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert all(name in SHIPPED or name.partition(".")[0] in allowed for name in names), names
