"""CaseOps (`lossless_caps_caseops_v1`): capital letters as marks before small ones, so that words have one spelling.

Source: the challenge's records from 2026-04-18 on.  Every run of ASCII letters is small and led by a mark where it was
not; a mark that is itself in the text is led by ESCAPE.  The text comes back exactly.
"""

import re

TITLE, CAPITALS, CAPITAL, ESCAPE = MARKS = "\ue001\ue002\ue003\ue004"


def to_caseops(text: str) -> str:
    r"""Mark capital letters.

    >>> to_caseops("The NASA iPhone") == "\ue001the \ue002nasa i\ue003phone"
    True
    """
    return re.sub(f"[{MARKS}]|[A-Za-z]+", _marked, text)


def _marked(run: re.Match[str]) -> str:
    word = run[0]
    small = word.lower()
    if word in MARKS:
        return ESCAPE + word
    if word == small:
        return word
    if len(word) > 1 and word == word.upper():
        return CAPITALS + small
    first = TITLE if word[0] != small[0] else ""
    return first + small[0] + re.sub("[A-Z]", lambda letter: CAPITAL + letter[0].lower(), word[1:])
