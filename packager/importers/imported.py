"""A checkpoint as it was read: float tensors, metadata, and the levels it stores, if any."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError, UsageError

STORED = "stored"  # the recipe that keeps a file's own levels
FORMS = "known: a state dict, int8_clean_per_row_v1, {'w': levels and scales, 'm': labels}, and rotated ternary levels"


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """A file's tensors.  tensors: as the original loads them; those of a quantized file dequantized, float32.

    stored: levels and scales exactly as the file has them, plain arrays in their own dtype; None for floats.
    decodes: whether levels times scales are the weights; not so where the file's levels are of rotated weights.
    kind: the format.  notes: one sentence each on what differs or was left out.
    """

    tensors: dict[str, np.ndarray]
    stored: dict[str, QuantizedTensor | np.ndarray] | None
    metadata: dict[str, Any]
    kind: str
    notes: tuple[str, ...] = ()
    decodes: bool = True

    def levels(self) -> dict[str, QuantizedTensor | np.ndarray]:
        """`stored`, for the recipe of that name.

        Raises: UsageError for a file of floats.
        """
        if self.stored is None:
            raise UsageError(
                f"recipe `{STORED}` keeps a file's own levels, but this is a float checkpoint ({self.kind})",
                hint="choose another recipe, such as pr162",
            )
        return self.stored

    def decodable_levels(self) -> dict[str, QuantizedTensor | np.ndarray]:
        """`levels`, to put into a submission: decoding them gives the weights.

        Raises: UsageError for a file of floats, or of levels in another basis.
        """
        if not self.decodes:
            raise UsageError(
                f"recipe `{STORED}` cannot be packed: this file's levels are of rotated weights ({self.kind})",
                hint="`pgolf measure` takes them; to pack, quantize its weights anew with another recipe",
            )
        return self.levels()


def check_finite(tensors: dict[str, np.ndarray]) -> None:
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError("holds values that are not finite", where=f"tensor `{name}`")


def listed(names: list[Any]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"`{name!s:.80}`" for name in names[:3]) + more
