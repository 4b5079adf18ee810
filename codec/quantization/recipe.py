"""A recipe: ordered rules "which tensors -> which treatment", as data.  The first rule that matches decides."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, get_type_hints

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError, UsageError
from codec.progress import Progress, silent
from codec.quantization.quantizers import QUANTIZERS, JointQuantizer, Quantizer, finite_cast
from codec.quantization.rate_distortion.quantizer import FEWEST  # and the module registers its treatment
from codec.quantization.registry import checked, kind_of, one_of
from codec.storage.calibration_file import Layers

FLOATS = {"float16": np.float16, "float32": np.float32}
SPECIAL = {("int8", None): "int8-clipped", ("int3", "five"): "five-levels"}  # treatment and step -> another quantizer
CODERS = ("zstd-22", "lzma-9e", "brotli-11", "brotli-11-shuffle")
EXAMPLE = "see codec/recipes/pr162.toml for an example"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Matches a tensor of at most `max_weights` weights whose name fits one of the glob patterns `names`.

    treatment: what a recipe calls it.  quantizer: None for float16 and float32.
    Raises: UsageError for another treatment without one.
    """

    treatment: str
    names: tuple[str, ...] = ("*",)
    max_weights: int | None = None
    quantizer: Quantizer | JointQuantizer | None = None

    def __post_init__(self) -> None:
        if self.quantizer is None and self.treatment not in FLOATS:
            raise UsageError(f"a rule of treatment `{self.treatment}` without quantizer", hint="make it with `Rule.of`")

    @classmethod
    def of(cls, /, **table: Any) -> "Rule":
        """The rule that a table of a recipe's TOML describes; keys beside the rule's own are the quantizer's.

        >>> Rule.of(treatment="int6", step="std", k=12.85, max_weights=65536).quantizer
        Uniform(bits=6, step=Std(k=12.85), granularity=Row(), symmetric=False, gptq=False, coarser=1.0)

        Raises: UsageError for an unknown key or treatment, a value of a wrong type, parameters that do not go together.
        """
        own = _own_fields(cls, {"quantizer"})
        said = {key: checked(key, value, own[key]) for key, value in table.items() if key in own}
        if "treatment" in said:
            one_of(said["treatment"], [*QUANTIZERS.names(), *FLOATS], "treatment")
        for key in table:
            one_of(key, [*own, *sorted(QUANTIZERS.keys())], "key")
        if "treatment" not in said:
            raise UsageError("lacks `treatment`", hint=EXAMPLE)
        rest = {key: value for key, value in table.items() if key not in own}
        return cls(**said, quantizer=_quantizer(said["treatment"], rest))

    def table(self) -> dict[str, Any]:
        """The inverse of `of`.

        >>> Rule.of(treatment="int6", step="std", k=12.85, names=["*.attn.*"]).table()
        {'names': ['*.attn.*'], 'treatment': 'int6', 'step': 'std', 'k': 12.85, 'granularity': 'row'}
        """
        own: dict[str, Any] = {} if self.names == ("*",) else {"names": list(self.names)}
        if self.max_weights is not None:
            own["max_weights"] = self.max_weights
        own["treatment"] = self.treatment
        if self.quantizer is None:
            return own
        for (treatment, step), name in SPECIAL.items():
            if treatment == self.treatment and QUANTIZERS.is_named(name, self.quantizer):
                return own | ({"step": step} if step else {}) | QUANTIZERS.table(name, self.quantizer)
        return own | QUANTIZERS.table(self.treatment, self.quantizer)

    def matches(self, name: str, weights: int) -> bool:
        fits = self.max_weights is None or weights <= self.max_weights
        return fits and any(fnmatchcase(name, pattern) for pattern in self.names)

    def apply(self, weights: np.ndarray, hessian: np.ndarray | None = None) -> QuantizedTensor | np.ndarray:
        """The treated tensor.  hessian: see `Quantizer.quantize`.

        Raises: InputError for weights that are not finite or do not fit; UsageError for a treatment of all tensors.
        """
        if isinstance(self.quantizer, JointQuantizer):
            raise UsageError(f"treatment `{self.treatment}` is for a whole checkpoint", hint="use quantize_checkpoint")
        if self.quantizer:
            return self.quantizer.quantize(weights, hessian)
        return finite_cast(weights, FLOATS[self.treatment])


def _quantizer(treatment: str, table: dict[str, Any]) -> Quantizer | JointQuantizer | None:
    """table: its parameters.  Raises: UsageError for one that it does not have."""
    name = SPECIAL.get((treatment, str(table["step"]) if "step" in table else None), treatment)
    left = {key: value for key, value in table.items() if name == treatment or key != "step"}
    quantizer = None if treatment in FLOATS else QUANTIZERS.build(name, left)
    if left:
        key = next(iter(left))
        owners = ", ".join(QUANTIZERS.part_owners(key))
        hint = f"it belongs to {owners}" if owners else ""
        if treatment == "int8" != name:
            hint = "give it a step"
        raise UsageError(f"treatment `{treatment}` takes no `{key}` here", hint=hint)
    return quantizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """rules: in order.  coder: the compressor of the original, measured beside ours, never shipped.

    strict: names of rules of which one that decides no tensor is an error: those that the user wrote.
    """

    name: str
    about: str
    coder: str
    rules: tuple[Rule, ...]
    strict: frozenset[tuple[str, ...]] = frozenset()

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

    @property
    def calibrates(self) -> bool:
        """Whether one of its rules does better with a calibration."""
        quantizers = [rule.quantizer for rule in self.rules if rule.quantizer]
        return any(isinstance(each, JointQuantizer) or each.wants_hessian for each in quantizers)

    def gptq_tensors(self, tensors: Mapping[str, np.ndarray]) -> list[str]:
        """Names of the matrices whose own quantizer wants a Hessian."""
        floats = {name: array for name, array in tensors.items() if array.dtype.kind == "f" and array.ndim > 1}
        chosen = {name: self.rule(name, array.size).quantizer for name, array in floats.items()}
        single = {name: each for name, each in chosen.items() if each and not isinstance(each, JointQuantizer)}
        return sorted(name for name, quantizer in single.items() if quantizer.wants_hessian)

    def joint_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[JointQuantizer, list[str]]:
        """Names of the tensors that are quantized together, in order."""
        found: dict[JointQuantizer, list[str]] = {}
        for name in sorted(tensors):
            if tensors[name].dtype.kind == "f":
                quantizer = self.rule(name, tensors[name].size).quantizer
                if isinstance(quantizer, JointQuantizer):
                    found.setdefault(quantizer, []).append(name)
        return found


def quantize_checkpoint(
    tensors: Mapping[str, np.ndarray], recipe: Recipe, layers: Layers | None = None, progress: Progress = silent
) -> dict[str, QuantizedTensor | np.ndarray]:
    """Every tensor through the treatment its recipe names; integers and bools are kept.

    layers: what was calibrated; None = gptq rules round to nearest instead, and a joint quantizer guesses.
    progress: told the weights done and the tensor at work.

    Raises: InputError naming the tensor that holds NaN or infinity, that float16 cannot hold, or that needs a Hessian
    of its own width.
    """
    if recipe.strict:
        _check_rules(recipe, {name: array.size for name, array in tensors.items() if array.dtype.kind == "f"})
    if layers is not None:
        _check_hessians(recipe, tensors, layers.hessians)
    treated: dict[str, QuantizedTensor | np.ndarray] = {}
    done = 0
    for quantizer, names in recipe.joint_tensors(tensors).items():
        treated |= quantizer.quantize_all(
            {name: tensors[name] for name in names}, layers, partial(_shifted, progress, done)
        )
        done += sum(tensors[name].size for name in names)
    for name in sorted(tensors.keys() - treated.keys()):
        weights = tensors[name]
        progress(done, name)
        done += weights.size
        if weights.dtype.kind != "f":
            treated[name] = weights
            continue
        try:
            hessian = layers.hessians.get(name) if layers else None
            treated[name] = recipe.rule(name, weights.size).apply(weights, hessian)
        except InputError as error:
            raise InputError(error.message, where=f"tensor `{name}`", hint=error.hint) from None
    return treated


def _shifted(progress: Progress, before: int, done: int, note: str) -> None:
    progress(before + done, note)


def _check_rules(recipe: Recipe, weights: dict[str, int]) -> None:
    """Every rule of strict names decides a float tensor."""
    deciding = {id(recipe.rule(name, size)) for name, size in weights.items()}
    for rule in recipe.rules:
        if id(rule) in deciding or rule.names not in recipe.strict:
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


def parse_recipe(text: str, where: str) -> Recipe:
    """The recipe that TOML text describes.  where: its name in messages.

    Raises: UsageError for an unknown key, treatment or coder, with the nearest known one; and as `Rule.of`.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not valid TOML ({error})", where=where) from None
    version, rules = data.pop("version", None), data.pop("rules", None)
    if version != 1:
        raise UsageError(f"has recipe version {version}, this toolkit reads version 1", where=where)
    if not isinstance(rules, list) or not rules:
        raise UsageError("has no [[rules]]", where=where, hint=EXAMPLE)
    try:
        fields = _head(data)
        return Recipe(rules=tuple(_rule(rule) for rule in rules), **fields)
    except UsageError as error:
        raise UsageError(error.message, where=where, hint=error.hint) from None


def _rule(data: Any) -> Rule:
    if not isinstance(data, dict):
        raise UsageError(f"a rule is {kind_of(data)}, it takes a table")
    return Rule.of(**data)


def _head(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe's strings, all of them."""
    fields = _own_fields(Recipe, {"rules", "strict"})
    for key in data:
        one_of(key, fields, "key")
    said = {key: checked(key, value, fields[key]) for key, value in data.items()}
    for key in fields:
        if key not in said:
            raise UsageError(f"lacks `{key}`", hint=EXAMPLE)
    one_of(said["coder"], CODERS, "coder")
    return said


def _own_fields(kind: type, without: set[str]) -> dict[str, Any]:
    """Name -> type of a dataclass's fields."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.name not in without}


def rounding_notes(recipe: Recipe, tensors: Mapping[str, np.ndarray], layers: Layers | None = None) -> tuple[str, ...]:
    """Notes on what the recipe loses without calibration, or where it does not reach."""
    notes = []
    if layers is None and (names := recipe.gptq_tensors(tensors)):
        notes.append(
            f"recipe {recipe.name} wants GPTQ for {len(names)} tensors, without Hessians they are rounded to nearest; "
            "make some with `pgolf calibrate`"
        )
    joint = [name for names in recipe.joint_tensors(tensors).values() for name in names]
    if layers is None and joint:
        notes.append(
            f"recipe {recipe.name} has no calibration: it still runs its trellis, but guesses that every row needs the "
            "same signal over noise, and keeps small tensors as floats; make one with `pgolf calibrate`"
        )
    elif layers is not None:  # of what is not calibrated, small tensors stay floats
        matrices = [name for name in joint if tensors[name].ndim > 1 and tensors[name].size > FEWEST]
        unknown = [name for name in matrices if not layers.terms(name) and layers.fisher(name) is None]
        if unknown:
            notes.append(
                f"{len(unknown)} of {len(matrices)} matrices were not calibrated, their importance is a guess: "
                + ", ".join(f"`{name}`" for name in unknown[:4])
                + (", ..." if len(unknown) > 4 else "")
            )
    return tuple(notes)
