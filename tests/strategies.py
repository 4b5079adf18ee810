"""Hypothesis strategies for state dicts: every rank, empty, one element, constant, extreme levels, odd names."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec import QuantizedTensor
from codec.decoder import Trellis
from codec.encoder import FARTHEST
from tests.golden.regenerate import MOVES, walk

names = st.text(min_size=0, max_size=40) | st.from_regex(
    r"blocks\.\d{1,2}\.(attn|mlp)\.[a-z_]{1,8}\.weight", fullmatch=True
)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
matrix_shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12)


def lattices(random: np.random.Generator, rows: int, columns: int, segment: int) -> np.ndarray:
    """int8 levels up to 31: every segment of a row is multiples of a step of its own, rounded."""
    steps = random.choice([2.3, 3.1, 4.4, 5.2], (rows, columns // segment, 1))
    multiples = random.integers(-6, 7, (rows, columns // segment, segment))
    return np.rint(multiples * steps).clip(-31, 31).astype(np.int8).reshape(rows, columns)


@st.composite
def quantized_tensors(draw):
    """Levels over the full int8 range or a narrow one; per-row float16 or one float32 scale."""
    low, high = draw(st.sampled_from([(-128, 127), (-32, 31), (-3, 3), (0, 0), (127, 127), (-128, -127)]))
    shape = draw(matrix_shapes)
    levels = draw(hnp.arrays(np.int8, shape, elements=st.integers(low, high)))
    if shape and draw(st.booleans()):
        return QuantizedTensor(levels, draw(hnp.arrays(np.float16, shape[:1])))
    return QuantizedTensor(levels, draw(hnp.arrays(np.float32, (1,))))


@st.composite
def stepped_tensors(draw):
    """Row scales times column steps, often those of another tensor."""
    rows, columns = draw(st.integers(0, 5)), draw(st.sampled_from([0, 1, 3, 12]))
    levels = draw(hnp.arrays(np.int8, (rows, columns)))
    steps = draw(st.sampled_from([0, 128, 255]))
    column_steps = np.full(levels.size // max(rows, 1), steps, np.uint8)
    if draw(st.booleans()):
        column_steps = draw(hnp.arrays(np.uint8, column_steps.shape))
    return QuantizedTensor(levels, draw(hnp.arrays(np.float16, (rows,))), column_steps)


@st.composite
def trellis_tensors(draw):
    """Levels that a trellis allows, near 0 or as far as they go; column steps often those of another tensor."""
    shape = draw(matrix_shapes)
    rows = shape[0] if len(shape) > 1 else 1
    columns = int(np.prod(shape)) // max(rows, 1)
    trellis = Trellis(*MOVES[draw(st.sampled_from([*MOVES]))], draw(st.sampled_from([1, 3, 512])))
    top = draw(st.sampled_from([0, 3, 127, 128, FARTHEST // 2 - 1]))
    halves = draw(hnp.arrays(np.int64, (rows, columns), elements=st.integers(-top - 1, top)))
    steps = np.full(columns, draw(st.sampled_from([0, 128, 255])), np.uint8)
    return QuantizedTensor(
        walk(halves, trellis).reshape(shape),
        draw(hnp.arrays(np.float32, (1,))),
        draw(hnp.arrays(np.uint8, (columns,))) if draw(st.booleans()) else steps,
        draw(hnp.arrays(np.uint8, (rows,))),
        trellis,
    )


@st.composite
def patterned_tensors(draw):
    """Large enough for classes of segments and for rows predicted from earlier ones, which small tensors never need."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = lattices(random, draw(st.integers(40, 100)), 64 * draw(st.integers(2, 4)), 64)
    if draw(st.booleans()):
        levels[draw(st.integers(1, 10)) : draw(st.integers(20, 40))] = levels[0]
    return QuantizedTensor(levels, random.random(len(levels)).astype(np.float16))


plain_tensors = shapes.flatmap(
    lambda shape: st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_]).flatmap(
        lambda dtype: hnp.arrays(dtype, shape)
    )
)

state_dicts = st.dictionaries(
    names, quantized_tensors() | stepped_tensors() | trellis_tensors() | plain_tensors, max_size=6
)
float_matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=2, max_side=20), elements=st.floats(-1000, 1000, width=32)
)
