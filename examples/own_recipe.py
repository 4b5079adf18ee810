"""A recipe of your own as a TOML file: what it costs tensor by tensor, then its steps fitted to a number of bytes.

python examples/own_recipe.py [model.safetensors]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from codec import fit_recipe, load_recipe, measure, read_checkpoint, recipe_toml

RECIPE = """
version = 1
name = "mine"
about = "int5 for the MLP, int6 for the other matrices, small tensors as float16"
coder = "zstd-22"

[[rules]]
treatment = "float16"
max_weights = 1000

[[rules]]
names = ["*.mlp.*"]
treatment = "int5"
step = "std"
k = 6.0

[[rules]]
treatment = "int6"
"""


def make_weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"0.attn.weight": (128, 128), "0.mlp.weight": (512, 128), "0.norm.weight": (128,)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def main(folder: Path, checkpoint: Path | None) -> None:
    tensors = read_checkpoint(checkpoint)[0] if checkpoint else make_weights()
    (folder / "mine.toml").write_text(RECIPE)
    recipe = load_recipe(folder / "mine.toml")
    found = measure(tensors, recipe)
    print(f"recipe mine: {found.ledger.artifact_bytes:,} bytes, SNR {found.snr_db:.2f} dB")
    for row in found.ledger.rows:
        print(f"  {row.name:16} {row.stored_as:8} {row.bytes:10,.0f} bytes  {row.bits_per_weight:6.3f} bits per weight")
    goal = found.ledger.artifact_bytes * 3 // 4
    fitted = fit_recipe(tensors, recipe, goal, {})
    print(f"fitted to {goal:,} bytes: {fitted.artifact_bytes:,}, SNR {fitted.snr_db[1]:.2f} dB; its last rules:")
    print("\n".join(recipe_toml(fitted.recipe).splitlines()[-7:]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place), Path(sys.argv[1]) if sys.argv[1:] else None)
