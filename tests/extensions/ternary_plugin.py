"""A quantizer from outside the toolkit: three levels, the large weights' mean size as step."""

from dataclasses import dataclass

from codec.errors import UsageError
from codec.quantization.array_ops import mean
from codec.quantization.granularity import Grid
from codec.quantization.quantizers import QUANTIZERS, FormulaQuantizer, Rounded, Rows


@QUANTIZERS.register("ternary")
@dataclass(frozen=True, kw_only=True, slots=True)
class Ternary(FormulaQuantizer):
    """threshold: in units of the row's mean |w|; smaller weights become 0.  Source: Li and Liu 2016."""

    threshold: float = 0.7

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise UsageError(f"a threshold of {self.threshold}", hint="it is a share of the mean weight")

    def round(self, rows: Rows) -> Rounded:
        xp, size = rows.ops.xp, abs(rows.values)
        kept = xp.asarray(size > self.threshold * mean(size, rows.ops), dtype=xp.float32)
        share = mean(kept, rows.ops)
        scales = mean(size * kept, rows.ops) / xp.where(share > 0, share, 1.0)
        return Rounded(xp.sign(rows.values) * kept, Grid(rows.ops.float16(scales)))
