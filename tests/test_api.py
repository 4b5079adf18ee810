"""The public names of each package: what they are, where they are described, and that they load."""

import ast
import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("codec", "trainer", "packager", "verify", "verify.audit")
PAGE = ROOT / "docs" / "api.md"


def section(package: str) -> str:
    """What docs/api.md says of one package."""
    return re.split(r"^## ", PAGE.read_text().partition(f"\n## {package}: ")[2], flags=re.MULTILINE)[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_loads_and_no_other(package):
    module = import_module(package)
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    assert {*module.__all__} <= {*dir(module)}
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module {package!r} has no attribute 'encoed'"):
        module.encoed  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_and_the_interpreter_see_the_same_names(package):
    module = import_module(package)
    block = next(node for node in ast.parse(Path(module.__file__).read_text()).body if isinstance(node, ast.If))
    seen = {(node.module, alias.name) for node in block.body for alias in node.names}
    [table] = [node for node in ast.walk(block.orelse[0]) if isinstance(node, ast.Dict)]
    homes = ast.literal_eval(table)
    assert seen == {(home, name) for home, names in homes.items() for name in names}
    assert {name for _, name in seen} == {*module.__all__}


@pytest.mark.parametrize("package", PACKAGES)
def test_docs_show_every_public_name_in_a_table_and_in_an_example(package):
    text = section(package)
    rows = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert rows == {*import_module(package).__all__}
    examples = "\n".join(example.source for example in doctest.DocTestParser().get_examples(PAGE.read_text()))
    used = {node.id for node in ast.walk(ast.parse(examples)) if isinstance(node, ast.Name)}
    assert rows - used == set()


def test_examples_of_the_docs_hold(tmp_path):
    """Printed values are exact where they do not come from training, which is one processor's."""
    failed, tried = doctest.testfile(
        str(PAGE), module_relative=False, globs={"folder": tmp_path}, optionflags=doctest.IGNORE_EXCEPTION_DETAIL
    )
    assert tried > 80
    assert failed == 0


def test_a_name_loads_only_what_it_needs():
    program = (
        "import sys, codec\n"
        "codec.CodecError; print('numpy' in sys.modules)\n"
        "codec.decode; print('numpy' in sys.modules, 'codec.encoder' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\nTrue False\n"
