"""The import contract: who may import whom, and what may not be loaded before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "codec": {"codec"},
    "trainer": {"codec", "trainer"},
    "packager": {"codec", "packager"},
    "verify": {"codec", "verify"},
    "pgolf": {"codec", "trainer", "packager", "verify", "pgolf"},
}
SCRIPTS = ROOT / "packager" / "template"  # read as text by packager, run only inside submissions


def imported(path: Path, *, only_top: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if only_top else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def modules(package: str) -> list[Path]:
    found = [path for path in sorted((ROOT / package).rglob("*.py")) if SCRIPTS not in path.parents]
    assert found
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_dependence_flows_one_way(package):
    for path in modules(package):
        assert imported(path) & MAY_IMPORT.keys() <= MAY_IMPORT[package], path


def test_codec_never_imports_torch():
    for path in modules("codec"):
        assert "torch" not in imported(path), path


def test_commands_load_nothing_heavy_until_they_run():
    for path in modules("pgolf"):
        assert imported(path, only_top=True) <= sys.stdlib_module_names | {"click", "pgolf", "codec"}, path


@pytest.mark.parametrize(
    "statement",
    ["import codec", "import codec.measurement.measurement, codec.measurement.compressors, codec.quantization.recipe"],
)
def test_codec_loads_without_torch(statement):
    check = f"{statement}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def test_help_is_light():
    program = (
        "import sys; from pgolf.__main__ import main; sys.argv = ['pgolf', '--help']; main();"
        "heavy = {'torch', 'numpy', 'sentencepiece'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout


def test_no_module_outgrows_a_sitting():
    for package in MAY_IMPORT:
        for path in modules(package):
            assert len(path.read_text().splitlines()) <= 400, path
