"""Settings of a run, which are the fields of GPTConfig and TrainConfig: their types, and which values fit them."""

import sys
from typing import Any, get_type_hints

from trainer.model.config import GPTConfig
from trainer.presets.train_config import TrainConfig

CONFIGS: dict[str, type] = {"model": GPTConfig, "train": TrainConfig}
FIELDS = {table: get_type_hints(config) for table, config in CONFIGS.items()}  # table -> name -> type
LARGEST = 10**18  # what saved states and logs keep exactly
_WORDS: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number of at least 0",
    float: "a number of at least 0",
    tuple[float, float]: "two numbers of at least 0",
    int | tuple[int, ...]: "a whole number of at least 0, or several",
}


def coerced(value: Any, kind: Any) -> Any:
    """The value as a field of that type holds it: a whole number as a float, a list as a tuple.

    value: of TOML.
    Raises: ValueError with the words for what the type takes.
    """
    if kind in (str, bool) and type(value) is kind:
        return value
    if kind is int and type(value) is int and 0 <= value < LARGEST:
        return value
    if kind is float and _is_number(value):
        return float(value)
    if kind == tuple[float, float] and type(value) is list and len(value) == 2 and all(map(_is_number, value)):
        return tuple(map(float, value))
    if kind == int | tuple[int, ...]:
        if type(value) is list and value and all(_is_whole(each) for each in value):
            return tuple(map(int, value))
        if _is_whole(value):
            return int(value)
    raise ValueError(_WORDS[kind])


def _is_whole(value: Any) -> bool:
    """A list on the command line is one of floats: 9,10."""
    return type(value) in (int, float) and 0 <= value < LARGEST and value == int(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max
