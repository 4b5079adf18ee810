"""Reads the imports of a tree of packages, and says what in them differs from a contract (see test_layers)."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

TEMPLATE = "packager.template"  # its scripts are read as text by packager, and run only inside submissions
MOST_MODULES = 15  # of a folder
Arrows = dict[str, set[str]]  # dotted module -> modules it imports, both of the toolkit; a package is its __init__


def read_arrows(root: Path, packages: Iterable[str]) -> Arrows:
    """Every import statement wherever it stands: inside a function and under TYPE_CHECKING as well."""
    files = {_dotted(path.relative_to(root)): path for package in packages for path in (root / package).rglob("*.py")}
    return {
        module: set(_targets(path, files))
        for module, path in sorted(files.items())
        if not module.startswith(f"{TEMPLATE}.")
    }


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _targets(path: Path, modules: Mapping[str, object]) -> Iterator[str]:
    packages = {_package(module) for module in modules}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}, line {node.lineno}: relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else str(node.module) for name in full]
        else:
            continue
        yield from (name for name in names if _package(name) in packages)


def package_complaints(arrows: Arrows, packages: Mapping[str, set[str]]) -> list[str]:
    """Arrows between packages that the table lacks."""
    return [
        f"{module} imports {target}"
        for module, targets in arrows.items()
        for target in sorted(targets)
        if _package(target) not in {_package(module), *packages[_package(module)]}
    ]


def wing_complaints(arrows: Arrows, package: str, table: Mapping[str, set[str]]) -> list[str]:
    """What differs between a package's table and its wings: arrows and rows too many or too few, arrows upwards.

    The package's own __init__ may import every wing, and no module of the package may import it.
    """
    own = {module: targets for module, targets in arrows.items() if module.startswith(f"{package}.")}
    complaints = [f"{module} imports its package's __init__" for module, targets in own.items() if package in targets]
    found: dict[str, set[str]] = {_wing(module): set() for module in own}
    for module, targets in own.items():
        for wing in sorted({_wing(target) for target in targets if target in own} - {_wing(module)}):
            found[_wing(module)].add(wing)
            if wing not in table.get(_wing(module), set()):
                complaints.append(f"{module} imports {package}.{wing}, which the table does not allow")
    floors = list(table)
    complaints += [f"{package}.{wing} has no row in the table" for wing in sorted(found.keys() - table.keys())]
    complaints += [f"the row {package}.{wing} is of a wing that does not exist" for wing in floors if wing not in found]
    for wing, allowed in table.items():
        complaints += [
            f"no module of {package}.{wing} imports {package}.{each}"
            for each in sorted(allowed - found.get(wing, set()))
        ]
        above = floors[: floors.index(wing)]
        complaints += [f"{package}.{each} is not above {package}.{wing}" for each in sorted(allowed - {*above})]
    return complaints


def _package(module: str) -> str:
    return module.partition(".")[0]


def _wing(module: str) -> str:
    return module.split(".")[1]


def circle(arrows: Arrows) -> str:
    """Modules that import each other in a circle, as `a -> b -> a`; "" where there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


def crowded(arrows: Arrows) -> list[str]:
    """Folders of more than MOST_MODULES modules, their __init__ not counted."""
    folders: dict[str, int] = defaultdict(int)
    packages = {module for module in arrows if any(other.startswith(f"{module}.") for other in arrows)}
    for module in arrows.keys() - packages:
        folders[module.rpartition(".")[0]] += 1
    return [f"{folder} has {count} modules" for folder, count in sorted(folders.items()) if count > MOST_MODULES]
