"""How a tensor is cut up before it is coded: bytes under one table each, and a matrix under tables by row."""

from dataclasses import dataclass

import numpy as np

from codec.decoder import QuantizedTensor
from codec.entropy.level_tables import Matrix, level_bits
from codec.entropy.models import changed

FEWEST_GROUPED = 2048  # floats, below which classes of rows cost more than they save


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorPlanes:
    """kind, shape: of the form (docs/format.md).  content: uint8 (bytes, count), a plane for each byte of an item.

    column_steps: uint8 (columns,), None where the tensor has none.  matrix: None where nothing is one.
    group: matrices of one group share their tables.
    """

    kind: str
    shape: tuple[int, ...]
    content: np.ndarray
    column_steps: np.ndarray | None = None
    matrix: Matrix | None = None
    group: str = ""

    @property
    def symbols(self) -> int:
        """Of content and matrix."""
        return self.content.size + (self.matrix.levels.size if self.matrix else 0)


def cut(tensor: QuantizedTensor | np.ndarray) -> TensorPlanes:
    """Scales and plain arrays become byte planes; levels, and the top bytes of large float matrices, a matrix."""
    if isinstance(tensor, QuantizedTensor):
        rows = len(tensor.scales)
        levels = tensor.levels.reshape(rows, tensor.levels.size // max(rows, 1))
        return TensorPlanes(
            kind="row" if tensor.scales.dtype == np.float16 else "all",
            shape=tensor.levels.shape,
            content=_byte_planes(tensor.scales),
            column_steps=tensor.column_steps,
            matrix=changed(levels),
            group=f"{level_bits(levels)} bits",  # tensors of one bit width share their tables
        )
    kind, content = tensor.dtype.newbyteorder("<").str, _byte_planes(tensor)
    if tensor.dtype.kind != "f" or tensor.ndim < 2 or tensor.size < FEWEST_GROUPED:
        return TensorPlanes(kind=kind, shape=tensor.shape, content=content)
    # The top byte of a float, sign and exponent, is as different from row to row as a level is.
    top = content[-1].view(np.int8).reshape(len(tensor), -1)
    return TensorPlanes(kind=kind, shape=tensor.shape, content=content[:-1], matrix=changed(top), group=kind)


def _byte_planes(array: np.ndarray) -> np.ndarray:
    """uint8 (itemsize, count), lowest byte first."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).ravel()
    return np.ascontiguousarray(little.view(np.uint8).reshape(-1, array.dtype.itemsize).T)
