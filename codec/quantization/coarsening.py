"""One axis for the step of a tensor: so many octaves wider or finer than its rule asks for.

Wider steps keep the rule's width, and fewer of its levels occur: int6 an octave wider costs what int5 does.  Finer ones
take the next width that holds them, so that no weight clips that the rule did not clip; int8 is the finest.
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

from codec.quantization.quantizers import JointQuantizer, Uniform
from codec.quantization.recipe import Rule

WIDEST = 8  # bits
TOP = 2 ** (WIDEST - 1) - 1
DIGITS = 9  # of the factor that a recipe states


@runtime_checkable
class Coarsened(Protocol):
    """A quantizer whose dataclass has the field `coarser`, by which it multiplies its steps."""

    coarser: float


def finest(rule: Rule) -> float:
    """The finest step there is, in octaves of the rule's own: at most 0; minus infinity without such an end."""
    quantizer = rule.quantizer
    if isinstance(quantizer, Uniform):
        return min(0.0, math.log2(quantizer.top / (TOP * quantizer.coarser)))
    return -math.inf if isinstance(quantizer, JointQuantizer) else 0.0


def coarsened(rule: Rule, octaves: float) -> Rule:
    """The rule with steps 2**octaves times as wide; the rule itself for 0.

    octaves: at least `finest(rule)`, below which levels would be clipped more than by the rule.

    >>> rule = Rule.of(treatment="int6")
    >>> coarsened(rule, 1).table()
    {'treatment': 'int6', 'step': 'absmax', 'granularity': 'row', 'coarser': 2.0}
    >>> coarsened(rule, -0.5).table()
    {'treatment': 'int7', 'step': 'absmax', 'granularity': 'row', 'coarser': 1.43702346}
    """
    quantizer = rule.quantizer
    if octaves == 0:
        return rule
    if isinstance(quantizer, Uniform):
        bits, factor = quantizer.bits, quantizer.coarser * 2.0**octaves
        while octaves < 0 and bits < WIDEST and _times(factor, bits, quantizer.top) < 1:
            bits += 1
        wider = dataclasses.replace(quantizer, bits=bits, coarser=_rounded(_times(factor, bits, quantizer.top)))
        treatment = rule.treatment if bits == quantizer.bits else f"int{bits}"
        return dataclasses.replace(rule, treatment=treatment, quantizer=wider)
    if isinstance(quantizer, JointQuantizer):
        return dataclasses.replace(rule, quantizer=quantizer.coarsened(octaves))
    if not isinstance(quantizer, Coarsened):
        raise TypeError(f"{rule.treatment} has no step to multiply")
    changed = dataclasses.replace(quantizer, coarser=_rounded(quantizer.coarser * 2.0**octaves))
    return dataclasses.replace(rule, quantizer=changed)


def _times(factor: float, bits: int, top: int) -> float:
    """The factor at another width, for a step in proportion to 1 / top; for rule `power` it is 1 to 3 % off."""
    return factor * float(2 ** (bits - 1) - 1) / top


def _rounded(factor: float) -> float:
    return float(f"{factor:.{DIGITS}g}")
