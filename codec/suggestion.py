"""Did you mean ...?  What to say after a name that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a question, empty if none is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else ""


def suggestion(name: str, known: Iterable[str], what: str = "known") -> str:
    """The nearest known name, or all there are, called `what`.

    >>> suggestion("pr126", ["pr162", "tiny"], "presets")
    'did you mean `pr162`?'
    >>> suggestion("other", ["pr162", "tiny"], "presets")
    'presets: pr162, tiny'
    """
    names = list(known)
    return did_you_mean(name, names) or f"{what}: {', '.join(names)}"
