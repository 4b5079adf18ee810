"""The import contract: who may import whom, and what may not be loaded before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import MOST_MODULES, Arrows, circle, crowded, package_complaints, read_arrows, wing_complaints

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {  # package -> packages it may import besides itself
    "codec": set(),
    "trainer": {"codec"},
    "packager": {"codec"},
    "verify": {"codec"},
    "pgolf": {"codec", "trainer", "packager", "verify"},
}
# Wing (a folder of a package, or a module beside its folders) -> wings it imports, all of them above it.
WINGS = {
    "codec": {
        "budget": set(),
        "errors": set(),
        "html": set(),
        "lazy": set(),
        "progress": set(),
        "suggestion": set(),
        "toml_text": set(),
        "decoder": {"errors"},
        "storage": {"errors"},
        "entropy": {"decoder", "errors"},
        "quantization": {"decoder", "errors", "progress", "storage", "suggestion", "toml_text"},
        "work": {"progress", "quantization"},
        "encoder": {"decoder", "entropy", "errors"},
        "measurement": {
            "decoder",
            "encoder",
            "entropy",
            "errors",
            "html",
            "progress",
            "quantization",
            "storage",
            "work",
        },
        "allocation": {"decoder", "encoder", "errors", "measurement", "progress", "quantization", "storage", "work"},
        "model_file": {
            "allocation",
            "decoder",
            "encoder",
            "errors",
            "html",
            "measurement",
            "progress",
            "quantization",
            "storage",
            "work",
        },
    },
    "trainer": {
        "model": set(),
        "compute": {"model"},
        "presets": {"model"},
        "data": {"compute"},
        "calibration": {"compute", "data", "model"},
        "hooks": {"calibration"},
        "optim": {"compute", "model", "presets"},
        "run": {"compute", "data", "model", "optim", "presets"},
    },
    "packager": {
        "importers": set(),
        "requirements": set(),
        "script": {"requirements"},
        "template": set(),
        "fitting": {"importers"},
        "reference": {"script"},
        "trial_load": {"script"},
        "submission": {"fitting", "importers", "reference", "requirements", "script", "trial_load"},
        "scaffold": {"reference", "requirements", "script", "submission"},
        "own_artifact": {"reference", "requirements", "script", "submission"},
    },
    "verify": {
        "rules": set(),
        "scoring": set(),
        "submission": set(),
        "finding": {"rules"},
        "reveal": {"scoring"},
        "sandbox": {"reveal", "scoring", "submission"},
        "judges": {"finding", "rules"},
        "verdict": {"finding", "scoring", "submission"},
        "memorisation": {"scoring"},
        "rescore": {"memorisation", "reveal", "sandbox", "scoring", "submission"},
        "audit": {"finding", "judges", "reveal", "rules", "sandbox", "scoring", "submission"},
        "claims": {"finding", "judges"},
        "foresight": {"audit", "finding", "reveal", "sandbox", "scoring"},
        "facts": {
            "claims",
            "foresight",
            "memorisation",
            "rescore",
            "reveal",
            "sandbox",
            "scoring",
            "submission",
        },
        "folder_rules": {"claims", "facts", "finding", "judges", "rules", "submission"},
        "run_rules": {"claims", "facts", "finding", "foresight", "judges", "memorisation", "rescore", "scoring"},
        "own_rules": {"facts", "finding", "run_rules"},
        "pipeline": {
            "claims",
            "facts",
            "finding",
            "folder_rules",
            "foresight",
            "memorisation",
            "own_rules",
            "rescore",
            "run_rules",
            "sandbox",
            "scoring",
            "submission",
            "verdict",
        },
        "record_folder": {"claims", "finding", "folder_rules", "pipeline", "submission"},
        "submission_gallery": {
            "audit",
            "foresight",
            "pipeline",
            "rules",
            "sandbox",
            "scoring",
            "submission",
            "verdict",
        },
    },
    "pgolf": {
        "plugins": set(),
        "signals": set(),
        "checkpoints": set(),
        "console": set(),
        "data_origin": set(),
        "doctor": {"console"},
        "evaluation": {"console"},
        "fit_report": {"console"},
        "fresh_text": set(),
        "options": set(),
        "own_artifacts": set(),
        "plots": set(),
        "scripts": set(),
        "tables": set(),
        "report": {"checkpoints", "evaluation", "plots", "scripts"},
        "__main__": {"plugins", "signals"},
        "commands": {
            "checkpoints",
            "console",
            "data_origin",
            "evaluation",
            "fit_report",
            "fresh_text",
            "options",
            "own_artifacts",
            "plots",
            "report",
            "scripts",
            "tables",
        },
        "reference": {"__main__"},
    },
}


@pytest.fixture(scope="module")
def arrows() -> Arrows:
    return read_arrows(ROOT, PACKAGES)


def test_dependence_flows_one_way_between_packages(arrows):
    assert package_complaints(arrows, PACKAGES) == []


@pytest.mark.parametrize("package", WINGS)
def test_dependence_flows_one_way_between_wings(arrows, package):
    assert wing_complaints(arrows, package, WINGS[package]) == []


def test_no_modules_import_each_other_in_a_circle(arrows):
    assert circle(arrows) == ""


def test_no_folder_is_crowded(arrows):
    assert crowded(arrows) == []


def test_no_module_outgrows_a_sitting():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path


# A small package with nothing wrong, to which each test below adds one thing.
TABLE: dict[str, set[str]] = {"base": set(), "left": {"base"}, "top": {"base", "left"}}
GOOD: dict[str, str] = {
    "__init__": "from house.top import roof",
    "base/__init__": "",
    "base/floor": "import math",
    "left/__init__": "",
    "left/wall": "from house.base.floor import math",
    "top": "from house.left import wall\ndef late():\n    from house.base.floor import math",
}


@pytest.fixture
def check(tmp_path):
    """Write the good package with some files changed -> everything the checks complain about."""

    def complaints(files: dict[str, str], table: dict[str, set[str]] = TABLE) -> list[str]:
        for name, text in (GOOD | files).items():
            path = tmp_path / "house" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        arrows = read_arrows(tmp_path, {"house": set()})
        return [
            *package_complaints(arrows, {"house": set()}),
            *wing_complaints(arrows, "house", table),
            *crowded(arrows),
            *([circle(arrows)] if circle(arrows) else []),
        ]

    return complaints


def test_a_good_package_gives_no_complaint(check):
    assert check({}) == []


def test_complains_about_an_arrow_upwards_in_a_function(check):
    assert check({"base/floor": "def late():\n    import house.left.wall"}) == [
        "house.base.floor imports house.left, which the table does not allow",
        "house.base.floor -> house.left.wall -> house.base.floor",
    ]


def test_complains_about_an_arrow_for_types_only(check):
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.top import late"
    assert check({"left/door": text}) == ["house.left.door imports house.top, which the table does not allow"]


def test_complains_about_an_arrow_that_no_module_has_any_more(check):
    assert check({"left/wall": ""}) == ["no module of house.left imports house.base"]


def test_complains_about_a_wing_without_a_row(check):
    assert check({"attic": ""}) == ["house.attic has no row in the table"]


def test_complains_about_a_row_without_a_wing(check):
    table = TABLE | {"cellar": set()}
    assert check({}, table) == ["the row house.cellar is of a wing that does not exist"]


def test_complains_about_a_table_that_points_upwards(check):
    table = {"left": {"base"}, "base": set(), "top": {"base", "left"}}
    assert check({}, table) == ["house.base is not above house.left"]


def test_complains_about_the_package_itself_imported_from_inside(check):
    assert check({"left/door": "from house import roof"}) == ["house.left.door imports its package's __init__"]


def test_complains_about_a_circle_inside_a_wing(check):
    files = {"left/door": "from house.left.key import a", "left/key": "from house.left import door"}
    assert check(files) == ["house.left.door -> house.left.key -> house.left.door"]


def test_complains_about_a_crowded_folder(check):
    files = {f"base/room{number}": "" for number in range(MOST_MODULES)}
    assert check(files) == ["house.base has 16 modules"]
    assert crowded({f"house.base.room{number}": set() for number in range(MOST_MODULES)}) == []


def test_complains_about_a_relative_import(check):
    with pytest.raises(AssertionError, match=r"door\.py, line 2: relative import"):
        check({"left/door": "\nfrom . import wall"})


def test_complains_about_another_package(tmp_path):
    for name, text in {"one": "import two.a", "two": "import one.a"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(text)
    arrows = read_arrows(tmp_path, {"one": {"two"}, "two": set()})
    assert package_complaints(arrows, {"one": {"two"}, "two": set()}) == ["two.a imports one.a"]


def imported(path: Path, *, only_top: bool = False) -> set[str]:
    """Top-level names of what a file imports."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in tree.body if only_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names}


def test_codec_never_imports_torch():
    for path in (ROOT / "codec").rglob("*.py"):
        assert "torch" not in imported(path), path


def test_commands_load_nothing_heavy_until_they_run():
    for path in (ROOT / "pgolf").rglob("*.py"):
        assert imported(path, only_top=True) <= sys.stdlib_module_names | {"click", "pgolf", "codec"}, path


def loaded(program: str, heavy: set[str]) -> set[str]:
    """Which of the heavy packages a fresh interpreter holds after running a program."""
    report = f"\nimport sys; sys.stderr.write(' '.join({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program + report], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import codec, codec.errors, codec.budget, codec.progress",
        "import trainer",
        "import packager",
        "import verify",
        "import pgolf.console, pgolf.options",
    ],
)
def test_a_package_loads_nothing_heavy_until_a_name_is_used(statement):
    assert loaded(statement, {"numpy", "torch", "sentencepiece", "safetensors"}) == set()


def test_every_part_of_codec_loads_without_torch():
    names = "import codec\nfor name in codec.__all__: getattr(codec, name)"
    assert loaded(f"{names}\nimport codec.measurement.compressors, codec.storage.calibration_file", {"torch"}) == set()


@pytest.mark.parametrize("command", [[], ["pack"], ["verify"], ["train"]], ids=lambda words: " ".join(words) or "pgolf")
def test_help_is_light(command):
    program = (
        "import contextlib, io, sys; from pgolf.__main__ import main\n"
        f"sys.argv = {['pgolf', *command, '--help']!r}\n"
        "with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit): main()\n"
        f"assert {'Options:' if command else 'Commands:'!r} in shown.getvalue()"
    )
    assert loaded(program, {"torch", "numpy", "sentencepiece"}) == set()
