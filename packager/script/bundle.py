"""Which modules a script needs, found by reading its imports; nothing is imported or run.

Carried are the toolkit's own modules, and the modules and packages that lie beside the script.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from codec.errors import InputError
from packager.requirements import is_known
from packager.script.embedded_texts import with_texts
from packager.script.imports import Import, imports, parsed
from packager.script.siblings import Siblings

CARRIED = ("codec", "trainer", "verify")  # packages whose modules travel inside the submission
OURS = (*CARRIED, "packager", "pgolf")
DECLARED = ("numpy", "safetensors", "sentencepiece", "torch")  # what a carried module may expect to be installed
NO_TEXTS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A script with the modules it needs.

    modules: dotted name -> source text, a module after the ones it imports unless they import each other.
    requires: import names of installed packages that the script and its modules cannot do without, sorted.
    optional: those that it tries to import.
    """

    main: str
    modules: dict[str, str]
    requires: tuple[str, ...]
    optional: tuple[str, ...] = ()


def bundle(main: str, where: str, *, beside: Path | None = None, texts: Mapping[str, str] = NO_TEXTS) -> Bundle:
    """Follow the imports of a script through the toolkit's modules and those in the folder `beside`.

    The toolkit's are imported as `from package.module import name`, siblings in any way.  An import inside `try` or
    `if` is optional: what is not there is left out.  `Path(__file__).with_name("NAME").read_text()` in the script
    becomes the text itself, of `texts` or else of the folder.

    main: the script's text.  where: its file name, for messages.

    Raises: InputError for a syntax error, a relative import in the script, an import of the toolkit in another form,
    a module that is neither carried nor of a known distribution, a toolkit module that needs a package no submission
    declares, or a text that is not there.
    """
    follow = _Follow(Siblings(beside))
    main = with_texts(main, where, beside, texts)
    follow.module("", main, where)
    return _complete(main, follow.modules, follow.packages)


def carried(main: str, modules: Mapping[str, str], where: str) -> Bundle:
    """The bundle of a script that brings its modules, as `unwrap` gives them back.

    Raises: InputError for a syntax error.
    """
    own = {name.partition(".")[0] for name in modules} | sys.stdlib_module_names | {"__main__"}
    found: dict[str, bool] = {}
    for text in (main, *modules.values()):
        for each in imports(parsed(text, where)):
            top = each.module.partition(".")[0]
            if not each.level and top not in own:
                found[top] = found.get(top, True) and each.optional
    return _complete(main, dict(modules), found)


def _complete(main: str, modules: dict[str, str], packages: dict[str, bool]) -> Bundle:
    required = {name for name, optional in packages.items() if not optional}
    optional = packages.keys() - required
    return Bundle(main=main, modules=modules, requires=tuple(sorted(required)), optional=tuple(sorted(optional)))


class _Follow:
    """Collects modules, dependencies first.  packages: import name -> whether every import of it is optional."""

    def __init__(self, siblings: Siblings) -> None:
        self.siblings = siblings
        self.modules: dict[str, str] = {}
        self.packages: dict[str, bool] = {}
        self.begun: set[str] = set()

    def module(self, name: str, text: str, where: str) -> None:
        """Follow what a module imports.  name: "" for the script."""
        for found in imports(parsed(text, where)):
            line = f"{where}, line {found.line}"
            if found.level:
                if base := self._base(name, found, line):
                    self._sibling(base, found, line)
                continue
            top = found.module.partition(".")[0]
            if self._beside(found, top, line):
                self._sibling(found.module, found, line)
            elif top in OURS:
                self._toolkit(found, top, line)
            elif top not in sys.stdlib_module_names and top != "__main__":
                self._package(found, top, name, line)

    def _base(self, name: str, found: Import, line: str) -> str:
        """The absolute name of a relative import's module; "" for one that fails in Python, where that is tried."""
        parts = name.split(".") if self.siblings.is_package(name) else name.split(".")[:-1]
        kept = parts[: len(parts) - found.level + 1]
        if kept and kept[0]:
            return ".".join([*kept, *([found.module] if found.module else [])])
        if found.optional:
            return ""
        raise InputError(
            "has a relative import outside of a package, which Python refuses",
            where=line,
            hint=f"a module beside the script is imported as `from {found.module or 'MODULE'} import`",
        )

    def _beside(self, found: Import, top: str, line: str) -> bool:
        """Whether Python would find the import beside the script."""
        if top in sys.stdlib_module_names:
            if self.siblings.is_module(top) and top not in sys.builtin_module_names:
                raise InputError(
                    f"imports `{top}`, a module of Python, and another of that name lies beside the script",
                    where=line,
                    hint="rename the file: which of the two runs depends on how the script is started",
                )
            return False
        if self.siblings.is_compiled(found.module):
            raise InputError(
                f"imports `{found.module}`, machine code beside the script, which cannot travel", where=line
            )
        if self.siblings.is_module(top):
            return not (top in OURS and self._is_toolkit(top))
        # A folder without __init__: wandb/ and data/ are often output, so only one that holds what is imported counts.
        if not self.siblings.is_folder(top) or is_known(top) or top in OURS:
            return False
        return any(map(self.siblings.is_module, [found.module, *(f"{found.module}.{each}" for each in found.names)]))

    def _is_toolkit(self, top: str) -> bool:
        spec = find_spec(top)
        places = spec.submodule_search_locations if spec else None
        folder = self.siblings.folder
        if folder is None or not (folder / top).is_dir():  # trainer.py beside the script is no package of the toolkit
            return False
        return any((folder / top).samefile(each) for each in places or () if Path(each).exists())

    def _sibling(self, module: str, found: Import, line: str) -> None:
        parts = module.split(".")
        for count in range(1, len(parts)):  # the packages on the way are run first
            self._carry(".".join(parts[:count]))
        if not self.siblings.is_module(module) and not self.siblings.is_folder(module):
            if found.optional:
                return
            raise InputError(
                f"imports `{module}`, which does not exist beside the script", where=line, hint="check the spelling"
            )
        self._carry(module)
        for each in found.names:
            self._carry(f"{module}.{each}")

    def _carry(self, module: str) -> None:
        if module in self.begun or not self.siblings.is_module(module):
            return
        self.begun.add(module)
        text = self.siblings.source(module)
        self.module(module, text, module)
        self.modules[module] = text

    def _toolkit(self, found: Import, top: str, line: str) -> None:
        _check_form(found, top, line)
        if found.module not in self.begun:
            self.begun.add(found.module)
            text = _source(found.module, line)
            self.module(found.module, text, found.module)
            self.modules[found.module] = text

    def _package(self, found: Import, top: str, name: str, line: str) -> None:
        if name.partition(".")[0] in OURS and top not in DECLARED and not self.siblings.is_module(name):
            raise InputError(
                f"imports `{top}`, which a carried module must not need",
                where=line,
                hint=f"carried modules use the standard library and {', '.join(DECLARED)}",
            )
        if not found.optional and not is_known(top):
            raise InputError(
                f"imports `{top}`, which is neither beside the script nor a known distribution",
                where=line,
                hint=f"put {top}.py beside it, or install the distribution that has it",
            )
        self.packages[top] = self.packages.get(top, True) and found.optional


def _check_form(found: Import, top: str, line: str) -> None:
    if top not in CARRIED:
        raise InputError(
            f"imports `{found.module}`, which a submission cannot carry",
            where=line,
            hint=f"import from {', '.join(CARRIED)}",
        )
    if not found.names or "*" in found.names or found.module == top:
        raise InputError(
            f"imports `{found.module}` in a form that cannot be carried",
            where=line,
            hint="write `from package.module import name`",
        )


def _source(name: str, line: str) -> str:
    """A module's text by way of its loader, so that it works from a checkout, a wheel or a zip file.

    Only the packages' locations are looked up: importing `trainer` would cost a torch import.
    """
    top, *inner = name.split(".")
    spec, found = find_spec(top), top
    for part in inner:
        found = f"{found}.{part}"
        spec = PathFinder.find_spec(found, spec.submodule_search_locations) if spec else None
    if spec and spec.submodule_search_locations is not None:
        raise InputError(
            f"imports `{name}`, a package", where=line, hint=f"name its module: `from {name}.MODULE import`"
        )
    get_source = getattr(spec.loader, "get_source", None) if spec else None
    text = get_source(name) if get_source else None
    if text is None:
        raise InputError(f"imports `{name}`, which does not exist", where=line, hint="check the spelling")
    return str(text)
