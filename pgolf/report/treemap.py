"""A treemap: areas proportional to bytes, in rectangles as near to squares as can be."""

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle, in pixels."""

    x: float
    y: float
    width: float
    height: float

    def inside(self, margin: float, top: float = 0.0) -> "Box":
        """Without a margin all around, and `top` more above."""
        width, height = max(self.width - 2 * margin, 0.0), max(self.height - 2 * margin - top, 0.0)
        return Box(self.x + margin, self.y + margin + top, width, height)


def squarified(sizes: Sequence[float], box: Box) -> list[Box]:
    """A rectangle for each size, which fall; together they fill the box.

    Source: Bruls, Huizing and van Wijk, Squarified Treemaps, 2000: a row along the shorter side takes another rectangle
    as long as that makes its worst one squarer.
    """
    total = sum(sizes)
    found: list[Box] = []
    left, begin = box, 0
    while begin < len(sizes):
        scale = left.width * left.height / total if total else 0.0
        side = min(left.width, left.height)
        end = begin + 1
        while end < len(sizes) and _worst(sizes[begin : end + 1], scale, side) <= _worst(sizes[begin:end], scale, side):
            end += 1
        end = end if scale else len(sizes)
        row, left = _row(sizes[begin:end], scale, left)
        found += row
        total -= sum(sizes[begin:end])
        begin = end
    return found


def sliced(sizes: Sequence[float], box: Box) -> list[Box]:
    """Slices of the box across its longer side, in the order of the sizes."""
    total = sum(sizes) or 1.0
    found, before = [], 0.0
    for size in sizes:
        part, start = size / total, before / total
        found.append(
            Box(box.x + start * box.width, box.y, part * box.width, box.height)
            if box.width >= box.height
            else Box(box.x, box.y + start * box.height, box.width, part * box.height)
        )
        before += size
    return found


def _worst(sizes: Sequence[float], scale: float, side: float) -> float:
    """How far the row's worst rectangle is from a square: the longer side over the shorter."""
    area = sum(sizes) * scale
    if not area or not side or not sizes[-1]:
        return float("inf")
    thick = area / side
    return max(max(size * scale / thick**2, thick**2 / (size * scale)) for size in (sizes[0], sizes[-1]))


def _row(sizes: Sequence[float], scale: float, box: Box) -> tuple[list[Box], Box]:
    """(The rectangles of one row along the shorter side, what is left of the box)."""
    area = sum(sizes) * scale
    if box.width >= box.height:
        thick = min(area / box.height if box.height else 0.0, box.width)
        row = _stacked(sizes, Box(box.x, box.y, thick, box.height), down=True)
        return row, Box(box.x + thick, box.y, box.width - thick, box.height)
    thick = min(area / box.width if box.width else 0.0, box.height)
    row = _stacked(sizes, Box(box.x, box.y, box.width, thick), down=False)
    return row, Box(box.x, box.y + thick, box.width, box.height - thick)


def _stacked(sizes: Sequence[float], box: Box, *, down: bool) -> list[Box]:
    total, before, found = sum(sizes) or 1.0, 0.0, []
    for size in sizes:
        part, start = size / total, before / total
        found.append(
            Box(box.x, box.y + start * box.height, box.width, part * box.height)
            if down
            else Box(box.x + start * box.width, box.y, part * box.width, box.height)
        )
        before += size
    return found
