"""Words in capitals, written as a mark and the word in lower case: NUM_LAYERS then matches num_layers.

Scripts of the challenge read each setting as `num_layers = int(os.environ.get("NUM_LAYERS", 11))`, so their compressed
text gets 240 to 430 bytes smaller; a few have so few of these that it grows.
"""

import re

MARK = "\1"  # no source of the field has this character
FOLDED = re.compile(rf"{MARK}(\w+)")


def fold(text: str) -> str | None:
    """The text with its capitals folded; None when `unfold` would not give it back."""
    folded = re.sub(r"\w+", lambda word: _folded(word[0]), text)
    return folded if MARK not in text and unfold(folded) == text else None


def unfold(text: str) -> str:
    """Inverse of `fold`."""
    return FOLDED.sub(lambda word: word[1].upper(), text)


def _folded(word: str) -> str:
    """Words of three characters and more that have capitals and no small letters."""
    return MARK + word.lower() if len(word) > 2 and word.isascii() and word.isupper() else word
