"""A file that holds one JSON object, such as submission.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codec.errors import InputError, printable
from codec.storage.atomic_files import read_bytes


def read_json_object(path: Path, *, parse_float: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """The object of a file.  parse_float: makes numbers with a point of their text; default: float.

    Raises: InputError when the file is missing, not JSON, or not an object, or gives a name twice: readers differ in
    which of the values they take.
    """
    try:
        content = json.loads(read_bytes(path), parse_float=parse_float, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON ({error})", where=str(path), hint="write it again") from None
    if not isinstance(content, dict):
        raise InputError("is not a JSON object", where=str(path), hint="write it again")
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{printable(name, 60)!r} stands there twice")
        found[name] = value
    return found
