"""Classes by the names that a recipe calls them, their parameters checked against the fields of the dataclass."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_type_hints

from codec.errors import UsageError
from codec.suggestion import suggestion

T = TypeVar("T")
Class = TypeVar("Class", bound=type)
KINDS: dict[Any, tuple[tuple[type, ...], str]] = {  # annotation -> what TOML may hold, and the words for it
    str: ((str,), "a string"),
    bool: ((bool,), "true or false"),
    int: ((int,), "an integer"),
    int | None: ((int,), "an integer"),
    float: ((int, float), "a number"),
    tuple[str, ...]: ((list,), "a list of strings"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    kind: type
    fixed: dict[str, Any]

    @property
    def parameters(self) -> dict[str, "dataclasses.Field[Any]"]:
        return {field.name: field for field in dataclasses.fields(self.kind) if field.name not in self.fixed}


class Registry(Generic[T]):
    """Frozen, kw-only dataclasses by name.  what: the word for one of them in messages.

    A parameter is a field of a type in KINDS, or one with the metadata `{"registry": PARTS}`: the recipe then names an
    entry of PARTS there, and that entry's parameters stand beside it in the same table.

    >>> SHAPES = Registry[object]("shape")
    >>> @SHAPES.register("square")
    ... @dataclass(frozen=True, kw_only=True)
    ... class Square:
    ...     side: float = 1.0
    >>> SHAPES.build("square", {"side": 2.0})
    Square(side=2.0)
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._entries: dict[str, _Entry] = {}

    def register(self, name: str, **fixed: Any) -> Callable[[Class], Class]:
        """Class decorator.  fixed: parameters that the name decides; a recipe cannot set them.

        Raises: UsageError for a name that is taken, or a parameter that TOML could not say.
        """

        def add(kind: Class) -> Class:
            if name in self._entries:
                raise UsageError(f"{self.what} `{name}` is registered already")
            entry = _Entry(kind=kind, fixed=fixed)
            hints = get_type_hints(kind)
            for key, field in entry.parameters.items():
                if "registry" not in field.metadata and hints[key] not in KINDS:
                    raise UsageError(f"{self.what} `{name}`: a recipe cannot say `{key}`, which is {field.type}")
            self._entries[name] = entry
            return kind

        return add

    def names(self) -> list[str]:
        return list(self._entries)

    def keys(self) -> set[str]:
        """Of a recipe's table: every parameter of every entry, and of the parts they name."""
        own = {key for entry in self._entries.values() for key in entry.parameters}
        return own.union(*(registry.keys() for registry in self._parts()))

    def part_owners(self, key: str) -> list[str]:
        """Which parts have this parameter, in words."""
        return [
            f"{registry.what} `{name}`"
            for registry in self._parts()
            for name, entry in registry._entries.items()
            if key in entry.parameters
        ]

    def build(self, name: str, table: dict[str, Any]) -> T:
        """The object `name` with its parameters from `table`, which is left with those that it does not have.

        Raises: UsageError for an unknown name, a value of a wrong type, a missing parameter.
        """
        entry = self._entries[one_of(name, self._entries, self.what)]
        hints, arguments = get_type_hints(entry.kind), dict(entry.fixed)
        for key, field in entry.parameters.items():
            if key in table:
                registry = field.metadata.get("registry")
                value = checked(key, table.pop(key), str if registry else hints[key])
                arguments[key] = registry.build(value, table) if registry else value
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise UsageError(f"{self.what} `{name}` lacks `{key}`")
        built: T = entry.kind(**arguments)
        return built

    def name_of(self, built: T) -> str:
        """What a recipe calls an object of an entry; of several the first.

        Raises: UsageError for an object of no entry.
        """
        for name in self._entries:
            if self.is_named(name, built):
                return name
        raise UsageError(f"a recipe has no name for the {self.what} {built}")

    def is_named(self, name: str, built: T) -> bool:
        """Whether `name` stands for an object like this one, whatever its parameters."""
        if name not in self._entries:
            return False
        entry = self._entries[name]
        return type(built) is entry.kind and all(getattr(built, key) == value for key, value in entry.fixed.items())

    def table(self, name: str, built: T) -> dict[str, Any]:
        """The inverse of `build`: what a recipe's table says beside the name; no defaults, but for parts."""
        said: dict[str, Any] = {}
        for key, field in self._entries[name].parameters.items():
            value, registry = getattr(built, key), field.metadata.get("registry")
            if registry:
                part = registry.name_of(value)
                said |= {key: part, **registry.table(part, value)}
            elif field.default_factory is not dataclasses.MISSING or value != field.default:
                said[key] = list(value) if isinstance(value, tuple) else value
        return said

    def _parts(self) -> list["Registry[Any]"]:
        fields = [field for entry in self._entries.values() for field in entry.parameters.values()]
        return list(dict.fromkeys(field.metadata["registry"] for field in fields if "registry" in field.metadata))


def one_of(name: str, known: Iterable[str], what: str) -> str:
    """Raises: UsageError for a name that is not known, with the nearest that is."""
    names = list(known)
    if name in names:
        return name
    raise UsageError(f"unknown {what} `{name}`", hint=suggestion(name, names))


def checked(key: str, value: Any, annotation: Any) -> Any:
    """A TOML value for a field of this type; a list becomes a tuple, and a tuple is taken for one.

    Raises: UsageError for a value of another type, or an empty list.
    """
    types, words = KINDS[annotation]
    value = list(value) if isinstance(value, tuple) else value
    if type(value) not in types or (isinstance(value, list) and {type(each) for each in value} - {str}):
        raise UsageError(f"`{key}` is {kind_of(value)}, it takes {words}")
    if value == []:
        raise UsageError(f"`{key}` is empty", hint="leave it out to match every tensor")
    return tuple(value) if isinstance(value, list) else value


def kind_of(value: Any) -> str:
    """What a value of TOML is called."""
    names = {str: "a string", bool: "true or false", int: "an integer", float: "a number", dict: "a table"}
    return names.get(type(value), "a list" if isinstance(value, list) else "a date")
