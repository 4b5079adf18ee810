"""A preset as TOML: one file's own keys, each checked by name and type.

version = 1
name = "mine"
description = "cpu-demo, wider"
extends = "cpu-demo"  # optional: another preset, or a TOML file beside this one; what is not said here is its
fixed_vocab = false   # optional: whether the vocabulary size is part of the preset, or the tokenizer's

[model]               # fields of trainer.model.config.GPTConfig
dim = 192

[train]               # fields of trainer.presets.train_config.TrainConfig
steps = 1600
"""

import json
import tomllib
from typing import Any

from codec.errors import UsageError
from codec.suggestion import suggestion
from trainer.presets.setting_values import FIELDS, coerced

VERSION = 1
HEAD: dict[str, type] = {"name": str, "description": str, "extends": str, "fixed_vocab": bool}


def parse_preset(data: bytes) -> dict[str, Any]:
    """The keys that the file holds, of those in HEAD; and "model" and "train", empty where it has no such table.

    Raises: UsageError for what is not TOML, another version, an unknown key, or a value of another type.
    """
    try:
        found = tomllib.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is not valid TOML ({error})") from None
    version = found.pop("version", None)
    if version != VERSION:
        hint = f"begin it with version = {VERSION}" if version is None else ""
        raise UsageError(f"has preset version {version}, this toolkit reads version {VERSION}", hint=hint)
    tables = {table: found.pop(table, {}) for table in FIELDS}
    own = {key: _checked(key, value, HEAD, (*HEAD, *FIELDS)) for key, value in found.items()}
    for table, values in tables.items():
        if not isinstance(values, dict):
            raise UsageError(f"`{table}` is {_shown(values)}, it must be a table", hint=f"write [{table}]")
        known = FIELDS[table]
        own[table] = {key: _checked(key, value, known, known, f"[{table}] ") for key, value in values.items()}
    return own


def _checked(key: str, value: Any, kinds: dict[str, Any], known: Any, where: str = "") -> Any:
    if key not in kinds:
        homes = [f"[{table}]" for table, fields in FIELDS.items() if key in fields]
        hint = f"it belongs under {' or '.join(homes)}" if homes else suggestion(key, known, "known")
        raise UsageError(f"{where}has an unknown key `{key}`", hint=hint)
    try:
        return coerced(value, kinds[key])
    except ValueError as error:
        raise UsageError(f"{where}`{key}` is {_shown(value)}, it must be {error}") from None


def _shown(value: Any) -> str:
    """As TOML would have it, near enough, and short."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."
