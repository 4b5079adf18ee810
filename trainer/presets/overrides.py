"""Single settings of a preset, changed by `KEY=VALUE` texts as a command line has them."""

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from difflib import get_close_matches
from types import GenericAlias
from typing import Any

from codec.errors import UsageError
from trainer.model.config import GPTConfig
from trainer.presets.catalog import Preset
from trainer.presets.train_config import TrainConfig

FROM_DATA = "vocab_size"  # the tokenizer's


def changed(preset: Preset, texts: Iterable[str]) -> Preset:
    """The preset with fields of its GPTConfig and TrainConfig set by `KEY=VALUE`; seq_len is both configs'.

    A value is a number of at least 0, true or false, two numbers joined by a comma, or text, as the field's type is.
    Raises: UsageError for an unknown or repeated key, a value of another type, or values that do not fit together.
    """
    known = {field.name: field.type for config in (GPTConfig, TrainConfig) for field in fields(config)}
    del known[FROM_DATA]
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"setting `{text}` has no value", hint="write KEY=VALUE, for example grad_clip=0.5")
        if key in values:
            raise UsageError(f"setting {key} is given twice", hint="keep one of them")
        if key not in known:
            raise _unknown(key, known)
        values[key] = _value(key, value, known[key])
    return replace(preset, model=_with(preset.model, values), train=_with(preset.train, values))


def _with(config: Any, values: dict[str, Any]) -> Any:
    own = {field.name for field in fields(config)}
    return replace(config, **{key: value for key, value in values.items() if key in own})


def _unknown(key: str, known: Iterable[str]) -> UsageError:
    if key == FROM_DATA:
        return UsageError(f"{key} cannot be set", hint="it is the tokenizer's number of pieces")
    near = get_close_matches(key, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"settings: {', '.join(known)}"
    return UsageError(f"there is no setting `{key}`", hint=hint)


def _value(key: str, text: str, kind: type | GenericAlias) -> Any:
    """The text as a value of that type."""
    if kind is str:
        return text
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if kind is int and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    numbers = [_number(part) for part in text.split(",")]
    if kind is float and len(numbers) == 1 and numbers[0] is not None:
        return numbers[0]
    if kind == tuple[float, float] and len(numbers) == 2 and None not in numbers:
        return tuple(numbers)
    raise UsageError(f"setting {key} is `{text}`, it must be {_WORDS[kind]}")


def _number(text: str) -> float | None:
    """At least 0 and finite, else None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


_WORDS = {
    bool: "true or false",
    int: "a whole number of at least 0",
    float: "a number of at least 0",
    tuple[float, float]: "two numbers of at least 0, as 0.85,0.95",
}
