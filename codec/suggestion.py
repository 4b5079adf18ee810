"""Did you mean ...?  What to say after a name that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggestion(name: str, known: Iterable[str], what: str = "known") -> str:
    """The nearest known name, or all there are, called `what`.

    >>> suggestion("pr126", ["pr162", "tiny"], "presets")
    'did you mean `pr162`?'
    >>> suggestion("other", ["pr162", "tiny"], "presets")
    'presets: pr162, tiny'
    """
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"{what}: {', '.join(names)}"
