"""How a notebook shows a result: its `to_dict`, as tables."""

from collections.abc import Callable
from html import escape
from typing import Any

MOST_ROWS = 200


class Shown:
    """A base of results that have `to_dict`: `_repr_html_`, which notebooks ask for, shows what that holds."""

    __slots__ = ()
    to_dict: Callable[..., dict[str, Any]]

    def _repr_html_(self) -> str:
        return html(self.to_dict(), type(self).__name__)


def html(value: Any, caption: str = "") -> str:
    """A table of a mapping or of a list of mappings; of all else its text, escaped.

    >>> html({"bytes": 1234567, "rows": [{"name": "<w>", "bits": 3.14159}]}).count("<table>")
    2
    """
    if isinstance(value, dict):
        return _table([[key, each] for key, each in value.items() if each not in ({}, [])], [], caption)
    if isinstance(value, list | tuple) and value and all(isinstance(each, dict) for each in value):
        keys = [*dict.fromkeys(key for each in value for key in each)]
        return _table([[each.get(key, "") for key in keys] for each in value], keys, caption)
    if isinstance(value, list | tuple):
        return escape(", ".join(map(_text, value)))
    return escape(_text(value))


def _table(rows: list[list[Any]], headers: list[str], caption: str) -> str:
    left_out = f"<tr><td>and {len(rows) - MOST_ROWS:,} more</td></tr>" if len(rows) > MOST_ROWS else ""
    lines = ["".join(f"<td>{html(cell)}</td>" for cell in row) for row in rows[:MOST_ROWS]]
    head = "".join(f"<th>{escape(each)}</th>" for each in headers)
    body = "".join(f"<tr>{line}</tr>" for line in ([head] if head else []) + lines)
    return f"<table>{f'<caption>{escape(caption)}</caption>' if caption else ''}{body}{left_out}</table>"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
