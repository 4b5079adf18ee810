"""Pack any safetensors checkpoint to 3.3 bits per weight, calibrated on its own forward passes, and load it back.

python examples/pack_checkpoint.py                      a small model made here, calibrated
python examples/pack_checkpoint.py model.safetensors    yours, without calibration
"""

import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from codec import decode_checkpoint, encode_checkpoint
from trainer import Hooks, sampled_loss


def make_model() -> nn.Module:
    """A stand-in for a model that you have trained: bigrams through a hidden layer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(256, 48), nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 256))


def calibrate(model: nn.Module, checkpoint: Path, path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    with Hooks(model) as hooks:
        for _ in range(8):
            ids = torch.randint(256, (16, 64), generator=generator)  # put your own text here
            hooks.step(sampled_loss(model(ids), generator), tokens=ids.numel())
    hooks.write(path, checkpoint)
    return path


def main(folder: Path, checkpoint: Path | None) -> None:
    calibration = None
    if checkpoint is None:
        model, checkpoint = make_model(), folder / "model.safetensors"
        state = {name: weight.bfloat16() if weight.ndim == 1 else weight for name, weight in model.state_dict().items()}
        save_file(state, checkpoint, {"format": "pt"})
        calibration = calibrate(model, checkpoint, folder / "calibration.safetensors")
    encoded = encode_checkpoint(checkpoint, bits_per_weight=3.3, calibration=calibration)
    (folder / "model.pga").write_bytes(encoded.artifact)
    size, bits = checkpoint.stat().st_size, encoded.bits_per_weight
    print(f"{size:,} -> {len(encoded.artifact):,} bytes, {bits:.3f} bits per weight")
    decode_checkpoint(folder / "model.pga").write(folder / "decoded.safetensors")
    before, after = load_file(checkpoint), load_file(folder / "decoded.safetensors")
    signal = sum(each.double().square().sum() for each in before.values())
    noise = sum((after[name].double() - each.double()).square().sum() for name, each in before.items())
    print(f"{len(after)} tensors loaded back, SNR {10 * torch.log10(signal / noise):.1f} dB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place), Path(sys.argv[1]) if sys.argv[1:] else None)
