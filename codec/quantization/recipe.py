"""A recipe: ordered rules "which tensors -> which treatment", as data.  The first rule that matches decides."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError, UsageError
from codec.quantization.quantizers import RowQuantizer, finite_cast, quantize_int8, quantize_tensor
from codec.storage.atomic_files import read_bytes

ROW_LEVELS = ("int3", "int4", "int5", "int6", "int7", "int8")
TREATMENTS = (*ROW_LEVELS, "int8-tensor", "float16", "float32")
KINDS: dict[str, tuple[tuple[type, ...], str]] = {  # of a recipe's keys; all others are strings
    "names": ((list,), "a list of strings"),
    "max_weights": ((int,), "an integer"),
    "k": ((int, float), "a number"),
    "symmetric": ((bool,), "true or false"),
    "gptq": ((bool,), "true or false"),
}
CODERS = ("zstd-22", "lzma-9e", "brotli-11", "brotli-11-shuffle")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Matches a tensor of at most `max_weights` weights whose name fits one of the glob patterns `names`.

    treatment: one of TREATMENTS.  step, k, symmetric: see quantizers.RowQuantizer; no step means absmax, and for
    int8 the clipped quantile of pull request 162.  gptq: round along the layer's Hessian where one is given.
    Raises: UsageError for parameters that do not go together.
    """

    treatment: str
    names: tuple[str, ...] = ("*",)
    max_weights: int | None = None
    step: str | None = None
    k: float = 0.0
    symmetric: bool = False
    gptq: bool = False

    def __post_init__(self) -> None:
        if self.quantizer() is None and (self.step or self.k or self.symmetric or self.gptq):
            hint = "give it a step" if self.treatment == "int8" else ""
            raise UsageError(f"treatment `{self.treatment}` takes no k, symmetric or gptq here", hint=hint)

    def matches(self, name: str, weights: int) -> bool:
        fits = self.max_weights is None or weights <= self.max_weights
        return fits and any(fnmatchcase(name, pattern) for pattern in self.names)

    def quantizer(self) -> RowQuantizer | None:
        """Of the rows, None for the treatments that have none."""
        if self.treatment not in ROW_LEVELS or (self.treatment == "int8" and not self.step):
            return None
        return RowQuantizer(
            bits=int(self.treatment[3:]), step=self.step or "absmax", k=self.k, symmetric=self.symmetric
        )

    def apply(self, weights: np.ndarray, hessian: np.ndarray | None = None) -> QuantizedTensor | np.ndarray:
        """The treated tensor.  hessian: used only by a gptq rule, which rounds to nearest without one.

        Raises: InputError for weights that are not finite or do not fit.
        """
        quantizer = self.quantizer()
        if quantizer:
            return quantizer.quantize(weights, hessian if self.gptq else None)
        if self.treatment == "int8":
            return quantize_int8(weights)
        if self.treatment == "int8-tensor":
            return quantize_tensor(weights)
        return finite_cast(weights, np.float16 if self.treatment == "float16" else np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """rules: in order.  coder: the compressor of the original, measured beside ours, never shipped.

    strict: a rule whose names fit no tensor is an error; so it is for recipes of the user's own.
    """

    name: str
    about: str
    coder: str
    rules: tuple[Rule, ...]
    strict: bool = False

    def rule(self, name: str, weights: int) -> Rule:
        """The rule for a float tensor; integers and bools have none, they are kept.

        Raises: UsageError when no rule matches.
        """
        for rule in self.rules:
            if rule.matches(name, weights):
                return rule
        raise UsageError(
            f"no rule of recipe {self.name} matches it",
            where=f"tensor `{name}`",
            hint="end the recipe with a rule without names",
        )

    def gptq_tensors(self, tensors: Mapping[str, np.ndarray]) -> list[str]:
        """Names of the matrices that a gptq rule treats."""
        floats = {name: array for name, array in tensors.items() if array.dtype.kind == "f" and array.ndim > 1}
        return sorted(name for name, array in floats.items() if self.rule(name, array.size).gptq)


def recipe_names() -> list[str]:
    """The recipes that come with the toolkit."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """One of `recipe_names()`, or a TOML file of the user.

    Raises: UsageError for an unknown name, key, treatment or coder, with the nearest known one.
    """
    if str(name_or_path).endswith(".toml"):
        own = _parse(read_bytes(name_or_path).decode("utf-8", "replace"), str(name_or_path))
        return dataclasses.replace(own, strict=True)
    name = _known(str(name_or_path), recipe_names(), "recipe", "recipe")
    return _parse((_folder() / f"{name}.toml").read_text("utf-8"), f"recipe {name}")


def quantize_checkpoint(
    tensors: Mapping[str, np.ndarray], recipe: Recipe, hessians: Mapping[str, np.ndarray] | None = None
) -> dict[str, QuantizedTensor | np.ndarray]:
    """Every tensor through the treatment its recipe names; integers and bools are kept.

    hessians: by tensor name, float (columns, columns), for gptq rules; None = round to nearest instead.

    Raises: InputError naming the tensor that holds NaN or infinity, that float16 cannot hold, or that needs a Hessian
    of its own width.
    """
    if recipe.strict:
        _check_rules(recipe, {name: array.size for name, array in tensors.items() if array.dtype.kind == "f"})
    if hessians is not None:
        _check_hessians(recipe, tensors, hessians)
    treated: dict[str, QuantizedTensor | np.ndarray] = {}
    for name in sorted(tensors):
        weights = tensors[name]
        if weights.dtype.kind != "f":
            treated[name] = weights
            continue
        try:
            treated[name] = recipe.rule(name, weights.size).apply(weights, (hessians or {}).get(name))
        except InputError as error:
            raise InputError(error.message, where=f"tensor `{name}`", hint=error.hint) from None
    return treated


def _check_rules(recipe: Recipe, weights: dict[str, int]) -> None:
    """Every rule with names decides a float tensor."""
    deciding = {id(recipe.rule(name, size)) for name, size in weights.items()}
    for rule in recipe.rules:
        if id(rule) in deciding or rule.names == ("*",):
            continue
        about = f"the rule for {', '.join(f'`{pattern}`' for pattern in rule.names)}"
        taken = [name for name in weights if any(fnmatchcase(name, pattern) for pattern in rule.names)]
        if taken:
            raise UsageError(
                f"{about} decides no tensor: those it names are larger than its max_weights, or an earlier rule's",
                where=f"recipe {recipe.name}",
                hint=f"look at the rules before it for `{taken[0]}`",
            )
        near = difflib.get_close_matches(rule.names[0].strip("*"), weights, 1, 0.0)
        raise UsageError(
            f"{about} matches no tensor",
            where=f"recipe {recipe.name}",
            hint=f"did you mean `{near[0]}`?" if near else "the checkpoint holds no floats",
        )


def _check_hessians(recipe: Recipe, tensors: Mapping[str, np.ndarray], hessians: Mapping[str, np.ndarray]) -> None:
    names = recipe.gptq_tensors(tensors)
    missing = [name for name in names if name not in hessians]
    if missing:
        raise InputError(
            f"has no Hessian, recipe {recipe.name} needs one for it; {len(missing)} of {len(names)} are missing",
            where=f"tensor `{missing[0]}`",
            hint="calibrate again, or give it a rule without gptq",
        )


def _folder() -> Any:
    return resources.files("codec") / "recipes"


def _parse(text: str, where: str) -> Recipe:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not valid TOML ({error})", where=where) from None
    version, rules = data.pop("version", None), data.pop("rules", None)
    if version != 1:
        raise UsageError(f"has recipe version {version}, this toolkit reads version 1", where=where)
    if not isinstance(rules, list) or not rules:
        raise UsageError("has no [[rules]]", where=where, hint="see codec/recipes/pr162.toml for an example")
    fields = _fields(data, Recipe, where, {"rules", "strict"})
    return Recipe(rules=tuple(_rule(rule, where) for rule in rules), **fields)


def _rule(data: Any, where: str) -> Rule:
    if not isinstance(data, dict):
        raise UsageError(f"a rule is {_kind(data)}, it takes a table", where=where)
    fields = _fields(data, Rule, where, set())
    _known(fields["treatment"], list(TREATMENTS), "treatment", where)
    try:
        return Rule(**fields)
    except UsageError as error:
        raise UsageError(error.message, where=where, hint=error.hint) from None


def _fields(data: dict[str, Any], kind: type, where: str, without: set[str]) -> dict[str, Any]:
    """The arguments of `kind`, checked for names and types; lists as tuples."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in without}
    for key, value in data.items():
        _known(key, list(fields), "key", where)
        types, words = KINDS.get(key, ((str,), "a string"))
        if type(value) not in types or (isinstance(value, list) and {type(each) for each in value} - {str}):
            raise UsageError(f"`{key}` is {_kind(value)}, it takes {words}", where=where)
        if value == []:
            raise UsageError(f"`{key}` is empty", where=where, hint="leave it out to match every tensor")
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in data:
            raise UsageError(f"lacks `{name}`", where=where, hint="see codec/recipes/pr162.toml for an example")
    if "coder" in data:
        _known(data["coder"], list(CODERS), "coder", where)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def _kind(value: Any) -> str:
    """What a value of TOML is called."""
    names = {str: "a string", bool: "true or false", int: "an integer", float: "a number", dict: "a table"}
    return names.get(type(value), "a list" if isinstance(value, list) else "a date")


def _known(name: str, known: list[str], what: str, where: str) -> str:
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, 1)
    raise UsageError(
        f"unknown {what} `{name}`",
        where="" if where == what else where,
        hint=f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}",
    )


def rounding_notes(recipe: Recipe, tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A note on what the recipe loses without Hessians; none when it has no use for them."""
    names = recipe.gptq_tensors(tensors)
    if not names:
        return ()
    return (
        f"recipe {recipe.name} wants GPTQ for {len(names)} tensors, without Hessians they are rounded to nearest; "
        "make some with `pgolf calibrate`",
    )
