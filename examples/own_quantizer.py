"""A quantizer of your own: three levels a row, -s, 0 and s, in a recipe beside one that comes with the toolkit.

python examples/own_quantizer.py [model.safetensors]
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codec import Recipe, Rule, measure, read_checkpoint
from codec.quantization.array_ops import mean
from codec.quantization.granularity import Grid
from codec.quantization.quantizers import QUANTIZERS, FormulaQuantizer, Rounded, Rows


@QUANTIZERS.register("ternary")
@dataclass(frozen=True, kw_only=True, slots=True)
class Ternary(FormulaQuantizer):
    """Weights above `threshold` times their row's mean size become plus or minus that size.

    Written over `rows.ops`, so the same lines round numpy arrays here and torch tensors while a model trains.
    """

    threshold: float = 0.7

    def round(self, rows: Rows) -> Rounded:
        size, xp = abs(rows.values), rows.ops.xp
        usual = mean(size, rows.ops)
        levels = xp.sign(rows.values) * xp.asarray(size > self.threshold * usual, dtype=xp.float32)
        return Rounded(levels, Grid(rows.ops.float16(1.4 * usual)))


def make_weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal((256, 256)).astype(np.float32) for name in ("attn.weight", "mlp.weight")}


def main(checkpoint: Path | None) -> None:
    tensors = read_checkpoint(checkpoint)[0] if checkpoint else make_weights()
    for rule in (Rule.of(treatment="ternary", threshold=0.7), Rule.of(treatment="int6")):
        recipe = Recipe(name=rule.treatment, about="", coder="zstd-22", rules=(rule,))
        found = measure(tensors, recipe)
        print(f"{recipe.name:8} {found.ledger.bits_per_weight:.3f} bits per weight, SNR {found.snr_db:.2f} dB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
