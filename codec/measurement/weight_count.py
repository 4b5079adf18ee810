"""How many weights a checkpoint has."""

from collections.abc import Mapping

import numpy as np

from codec.measurement.byte_ledger import copies


def weight_count(tensors: Mapping[str, np.ndarray]) -> int:
    """How many weights there are.  A copy of another tensor, as a tied head is one of the embedding, counts nothing."""
    copied = copies(tensors)
    return sum(array.size for name, array in tensors.items() if name not in copied)
