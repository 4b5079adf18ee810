"""Single settings of a preset, changed by `KEY=VALUE` texts as a command line has them."""

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, TypeVar

from codec.errors import UsageError
from codec.suggestion import suggestion
from trainer.model.config import GPTConfig
from trainer.presets.preset import Preset
from trainer.presets.setting_values import FIELDS, coerced
from trainer.presets.train_config import TrainConfig

Config = TypeVar("Config", GPTConfig, TrainConfig)
FROM_DATA = "vocab_size"  # the tokenizer's


def apply_overrides(preset: Preset, texts: Iterable[str]) -> Preset:
    """The preset with fields of its GPTConfig and TrainConfig set by `KEY=VALUE`; seq_len is both configs'.

    A value is a number of at least 0, true or false, numbers joined by commas, or text, as the field's type is.
    Raises: UsageError for an unknown or repeated key, a value of another type, or values that do not fit together.
    """
    values = _parsed_settings(texts, {key: kind for table in FIELDS.values() for key, kind in table.items()})
    return replace(preset, model=_with(preset.model, values), train=_with(preset.train, values))


def model_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Fields of a GPTConfig from `KEY=VALUE` texts.  Raises: UsageError as `apply_overrides`."""
    return _parsed_settings(texts, FIELDS["model"])


def _parsed_settings(texts: Iterable[str], kinds: dict[str, Any]) -> dict[str, Any]:
    known = {key: kind for key, kind in kinds.items() if key != FROM_DATA}
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"setting `{text}` has no value", hint="write KEY=VALUE, for example grad_clip=0.5")
        if key in values:
            raise UsageError(f"setting {key} is given twice", hint="keep one of them")
        if key == FROM_DATA:
            raise UsageError(f"{key} cannot be set", hint="it is the tokenizer's number of pieces")
        if key not in known:
            raise UsageError(f"there is no setting `{key}`", hint=suggestion(key, known, "settings"))
        values[key] = _value(key, value, known[key])
    return values


def _with(config: Config, values: dict[str, Any]) -> Config:
    own = {field.name for field in fields(config)}
    return replace(config, **{key: value for key, value in values.items() if key in own})


def _value(key: str, text: str, kind: Any) -> Any:
    """The text as a value of that type."""
    try:
        return coerced(text if kind is str else _parsed(text), kind)
    except ValueError as error:
        pair = {tuple[float, float]: ", as 0.85,0.95", int | tuple[int, ...]: ", as 9,10"}.get(kind, "")
        raise UsageError(f"setting {key} is `{text}`, it must be {error}{pair}") from None


def _parsed(text: str) -> Any:
    """The truth value, number or list of numbers that the text is, else the text itself."""
    if text in ("true", "false"):
        return text == "true"
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers
