"""How many weights a checkpoint has."""

import hashlib
from collections.abc import Mapping

import numpy as np


def weight_count(tensors: Mapping[str, np.ndarray]) -> int:
    """How many weights there are.  A copy of another tensor, as a tied head is one of the embedding, counts nothing.

    Tensors that are equal because each holds one value everywhere are no copies: zeros may be trained apart.
    """
    seen: set[bytes] = set()
    count = 0
    for array in tensors.values():
        content = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).digest()
        if content not in seen or array.size < 2 or (array == array.flat[0]).all():
            count += array.size
        seen.add(content)
    return count
