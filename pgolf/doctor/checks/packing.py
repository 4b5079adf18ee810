"""Calibration on the device, then pack, then the artifact loaded on the device again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pgolf.doctor.checks.synthetic import tokens, weights
from pgolf.doctor.outcome import Measured, Row
from pgolf.doctor.plan import Plan

PRESET, RECIPE = "pr162", "pr162"
SECONDS = "seconds"


def packing(plan: Plan, seconds: float) -> Measured:
    """Seconds of each stage, where it ran, and whether the loaded model is the decoded one bit for bit."""
    import torch

    from codec.decoder import decode
    from codec.encoder import encode
    from codec.quantization.recipe import quantize_checkpoint
    from codec.quantization.recipe_files import load_recipe
    from trainer.calibration import calibrate, calibration_model, default_sequences, sequences_per_pass
    from trainer.compute.device import find_device
    from trainer.model.packed import load

    device, config = find_device(plan.device), plan.preset(PRESET).model
    tensors, rows = weights(config), []

    @contextmanager
    def timed(stage: str, where: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        rows.append(Row({"stage": stage, "ran on": where, SECONDS: time.monotonic() - started}))

    count = default_sequences(config)
    batch = min(sequences_per_pass(config, device), count)
    drawn = torch.from_numpy(tokens(count * config.seq_len, config.vocab_size).astype("int64")).view(count, -1)
    with timed("calibrate", plan.device):
        found = calibrate(calibration_model(config, tensors, device), drawn.split(batch))
    with timed(f"quantize by {RECIPE}", "cpu"):
        treated = quantize_checkpoint(tensors, load_recipe(RECIPE))
    with timed("encode", "cpu"):
        blob = encode(treated, {"config": config.to_dict()})
    with TemporaryDirectory(prefix="pgolf-doctor-") as folder:
        path = Path(folder, "model.bin")
        path.write_bytes(blob)
        with timed("decode and load", f"cpu, then {plan.device}"):
            model = load(path, device)
    state = model.state_dict()
    differing = [
        name for name, array in decode(blob).items() if not torch.equal(state[name].cpu(), torch.tensor(array))
    ]
    wrong = [f"{len(differing)} loaded tensors are not the decoded ones, {differing[0]} first"] if differing else []
    size = sum(array.size for array in tensors.values())
    return Measured(
        rows=tuple(rows),
        wrong=tuple(wrong),
        notes=(
            f"{size:,} weights, {len(found.hessians)} layers, {found.tokens:,} tokens; artifact {len(blob):,} bytes",
            "only calibration and loading use the device: quantizing and coding are numpy, and have no path on a GPU",
        ),
    )
