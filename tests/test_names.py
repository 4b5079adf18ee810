"""Names: none of the old private words is left, and none means two things in one package."""

import ast
import re
import tokenize
from collections import defaultdict
from pathlib import Path

import pytest

from tests.imports import TEMPLATE

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("codec", "trainer", "packager", "verify", "pgolf")
# Module names that others have replaced, beside those that only moved into a folder.
OLD_MODULES = {
    "codec": (
        "baselines", "clusters", "contexts", "costs", "files", "hessians", "layouts", "parts", "prediction", "shards",
    ),
    "trainer": ("embedded", "identity", "log", "records", "seeds", "settings"),
    "packager": ("containers", "foreign", "scripts", "source"),
    "verify": (
        "adaptation", "arithmetic", "attempts", "audit_accounts", "audit_checks", "byte_models", "checks", "child",
        "claimed", "code_bytes", "examination", "flow", "legacy", "log_checks", "logs", "observation",
        "perturbation", "published", "record", "reload", "remote", "remote_adaptation", "run_command", "sample",
        "scored", "scorers", "seed_family", "served", "statements", "stream", "triage", "unwrap", "witness",
    ),
    "pgolf": ("models", "origin", "picture", "scores"),
}  # fmt: skip
# Identifiers: classes, functions, methods, arguments.
OLD_NAMES = {
    "trainer": ("Decision", "Parts", "Place", "_heard", "agree", "meet", "patient", "put", "speaks_of_loss"),
    "packager": ("Order", "foreign"),
    "verify": ("Errand", "Watch", "told"),
    "pgolf": ("Errand", "Order", "_one_voice", "agree", "put", "speaks_of_loss"),
}


@pytest.mark.parametrize("package", OLD_MODULES)
def test_no_old_module_is_left_or_named(package):
    pattern = re.compile(rf"\b{package}[./]({'|'.join(OLD_MODULES[package])})\b")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for top in PACKAGES
        for path in sorted((ROOT / top).rglob("*.py"))
        for match in pattern.finditer(path.read_text())
    ]
    assert found == []
    assert [name for name in OLD_MODULES[package] if (ROOT / package / f"{name}.py").exists()] == []


@pytest.mark.parametrize("package", OLD_NAMES)
def test_no_old_identifier_is_left(package):
    found = defaultdict(list)
    for path in sorted((ROOT / package).rglob("*.py")):
        with path.open("rb") as source:
            names = {token.string for token in tokenize.tokenize(source.readline) if token.type == tokenize.NAME}
        for name in sorted(names.intersection(OLD_NAMES[package])):
            found[name].append(str(path.relative_to(ROOT)))
    assert not found, _listed(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_public_names_of_a_package_are_alike(package):
    """`main` is what starts a process, wherever it stands; the template's script runs in a process of its own."""
    places = defaultdict(list)
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.parent == ROOT / TEMPLATE.replace(".", "/"):
            continue
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and node.name != "main":
                places[node.name].append(str(path.relative_to(ROOT)))
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, _listed(twice)


def _listed(places: dict[str, list[str]]) -> str:
    return "\n" + "\n".join(f"{name}: {', '.join(where)}" for name, where in sorted(places.items()))
