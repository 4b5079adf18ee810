"""Bytes as ASCII text of 125 characters: all but NUL, CR and the backslash, which no Python literal holds as they are.

6.97 bits a character, where base 85 has 6.41.  The bytes are one big number; its digits run from 1 to 125 (there is no
0), so every number has one spelling.  A digit d is the d-th of the characters 1 to 127 without 13 and 92.
"""

from codec.errors import InputError
from codec.storage.decompress import from_digits

MAX_DIGITS = 1 << 17  # 114 kB packed; a script's own loader needs a time that grows with the square: a second
CHARACTERS = bytes(code for code in range(1, 128) if code not in (13, 92))
_DIGITS = {code: digit for digit, code in enumerate(CHARACTERS, start=1)}


def encode(data: bytes) -> bytes:
    """Raises: InputError for more than MAX_DIGITS characters."""
    if 8 * len(data) > MAX_DIGITS * 6.96:
        raise InputError(f"{len(data):,} bytes are too many for the dense form", hint="use --form safe")
    number, digits = int.from_bytes(data, "big"), bytearray()
    while number:
        number, digit = divmod(number - 1, 125)
        digits.append(CHARACTERS[digit])
    return bytes(reversed(digits))


def decode(text: bytes, length: int) -> bytes:
    """The `length` bytes that `encode` was given.  Raises: ValueError for anything else."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{len(text)} digits are too many")
    if strange := set(text) - set(CHARACTERS):
        raise ValueError(f"{min(strange)} is no digit")
    number = from_digits([_DIGITS[code] for code in text], 125)
    try:
        return number.to_bytes(length, "big")
    except OverflowError:
        raise ValueError("the number is too large") from None
