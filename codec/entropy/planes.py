"""How a tensor is cut up before it is coded: bytes under one table each, and a matrix under tables by row."""

from dataclasses import dataclass

import numpy as np

from codec.decoder import QuantizedTensor, Trellis
from codec.entropy.level_tables import Matrix, level_bits
from codec.entropy.models import changed

TRELLIS = "trellis"  # the group of matrices whose levels have two tables each
FEWEST_GROUPED = 2048  # floats, below which classes of rows cost more than they save


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorPlanes:
    """kind, shape: of the form (docs/format.md).  content: uint8 (bytes, count), a plane for each byte of an item.

    column_steps, row_steps: uint8 (columns,) and (rows,), None where the tensor has none.  trellis: of the tensor.
    matrix: None where nothing is one.
    group: matrices of one group share their tables.
    """

    kind: str
    shape: tuple[int, ...]
    content: np.ndarray
    column_steps: np.ndarray | None = None
    row_steps: np.ndarray | None = None
    trellis: Trellis | None = None
    matrix: Matrix | None = None
    group: str = ""

    @property
    def symbols(self) -> int:
        """Of content and matrix."""
        return self.content.size + (self.matrix.levels.size if self.matrix else 0)


def cut(tensor: QuantizedTensor | np.ndarray) -> TensorPlanes:
    """Scales and plain arrays become byte planes; levels, and the top bytes of large float matrices, a matrix."""
    if isinstance(tensor, QuantizedTensor) and tensor.trellis:
        return TensorPlanes(
            kind="trellis",
            shape=tensor.levels.shape,
            content=_byte_planes(tensor.scales),
            column_steps=tensor.column_steps,
            row_steps=tensor.row_steps,
            trellis=tensor.trellis,
            matrix=_halved(tensor.levels.reshape(tensor.rows, tensor.levels.size // max(tensor.rows, 1))),
            group=TRELLIS if any(tensor.trellis[:2]) else "even",
        )
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


def arrays_of(tensor: QuantizedTensor | np.ndarray) -> list[np.ndarray]:
    """Levels, scales and steps, or the plain array."""
    return (
        [each for each in tensor if isinstance(each, np.ndarray)] if isinstance(tensor, QuantizedTensor) else [tensor]
    )


def coded_levels(tensor: QuantizedTensor) -> np.ndarray:
    """Levels, or halves of those of a trellis, whose states tell the rest."""
    return tensor.levels >> 1 if tensor.trellis else tensor.levels


def _halved(levels: np.ndarray) -> Matrix:
    """int32 (rows, columns) -> what is coded of levels whose parity the state tells."""
    halves = (levels >> 1).astype(np.int64)
    symbols = halves << 1 ^ halves >> 63  # 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
    odd, near = (levels & 1).astype(np.uint8), symbols.clip(0, 255)
    far = symbols[near == 255] - 255
    folded = (near >> 1 ^ -(near & 1)).astype(np.int8)
    return Matrix(levels=folded, odd=odd, far=far if far.any() else None)


def _byte_planes(array: np.ndarray) -> np.ndarray:
    """uint8 (itemsize, count), lowest byte first."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).ravel()
    return np.ascontiguousarray(little.view(np.uint8).reshape(-1, array.dtype.itemsize).T)
