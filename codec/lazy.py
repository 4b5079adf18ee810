"""Names of a package whose modules load when a name is first used (PEP 562), so that an import stays light.

A package lists them for type checkers and readers under `if TYPE_CHECKING:`, and here for the interpreter:

    if TYPE_CHECKING:
        from codec.decoder import decode
    else:
        __getattr__, __dir__ = lazy(__name__, {"codec.decoder": ("decode",)})
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], Sequence[str]]]:
    """(`__getattr__`, `__dir__`) of a package.  modules: dotted name -> the names that come from it."""
    homes = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # the next use finds it without asking here
        return value

    def names() -> Sequence[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
