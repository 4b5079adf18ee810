"""Values as TOML text, for the recipes and presets that the toolkit writes."""

import json
from typing import Any


def toml_line(key: str, value: Any) -> str:
    """One key with a string, number, truth value, or list of them.

    >>> toml_line("names", ["a", "b"])
    'names = ["a", "b"]\\n'
    """
    # What JSON says of strings, integers, booleans and lists is TOML, but for the character 127.
    text = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{key} = {text}\n"
