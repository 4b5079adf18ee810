"""The state of a run: how it begins, and the file from which it goes on after a kill."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from codec.checkpoint import read_checkpoint, write_checkpoint
from codec.errors import InputError, UsageError
from trainer.averaging import WeightAverage
from trainer.model import GPT

_ADAM = ("exp_avg", "exp_avg_sq", "step")


def initialize(model: GPT, seed: int) -> None:
    """Starting weights: embeddings N(0, embed_std^2), linear layers orthogonal, output projections and table zero.

    The bigram projection is scaled by 1/sqrt(2 layers); it may not be zero, or table and projection would keep each
    other's gradient at zero.  Linear layers with a side below 64 keep torch's uniform(+-1/sqrt(inputs)).
    Source: the code of pull request 162.
    """
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(model.tok_emb.weight, std=model.config.embed_std, generator=generator)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if name.startswith("blocks.") and name.endswith(".proj"):
                nn.init.zeros_(module.weight)
            elif min(module.weight.shape) >= 64:
                nn.init.orthogonal_(module.weight, generator=generator)
            else:
                bound = 1 / math.sqrt(module.in_features)
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
    if model.bigram is not None:
        nn.init.zeros_(model.bigram.embed.weight)
        with torch.no_grad():
            model.bigram.proj.weight.mul_(1 / math.sqrt(2 * model.config.layers))


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run stands: steps done, seconds trained, length of its log."""

    step: int
    seconds: float
    log_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Everything that training changes."""

    model: GPT
    optimizers: tuple[Optimizer, ...]
    average: WeightAverage | None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all there is to save, the live tensors themselves."""
        for name, weight in self.model.named_parameters():
            yield f"weights/{name}", weight
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(weight, {}).items():
                    yield f"{key}/{name}", value
        if self.average:
            yield from ((f"average/{name}", shadow) for name, shadow in self.average.shadow.items())

    @torch.no_grad()
    def restore(self, saved: dict[str, Tensor]) -> None:
        """Take over what `tensors` once gave.  AdamW makes its buffers at its first step, so they are put in place."""
        for optimizer in self.optimizers:
            members = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
            for name, weight in self.model.named_parameters():
                if id(weight) in members:
                    made = {key: saved[f"{key}/{name}"].to(weight.device) for key in _ADAM if f"{key}/{name}" in saved}
                    optimizer.state[weight].update(made)
        for name, tensor in self.tensors():
            tensor.copy_(saved[name])


def save_state(path: str | Path, parts: Parts, place: Place, identity: dict[str, Any]) -> None:
    """Write weights, optimizer buffers, average and place in one atomic step.

    identity: plain JSON that decides the run (preset, sizes, seed, data); a resumed run must have the same.
    """
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in parts.tensors()}
    metadata = {"step": place.step, "seconds": place.seconds, "log_bytes": place.log_bytes, "identity": identity}
    write_checkpoint(path, arrays, metadata)


def load_state(path: str | Path, parts: Parts, identity: dict[str, Any]) -> Place:
    """Put a saved state back into `parts`.

    Raises: UsageError naming the first settings that differ from the saved run's; InputError for a damaged file.
    """
    arrays, metadata = read_checkpoint(path)
    if "identity" not in metadata:
        raise InputError("is not the state of a run", where=str(path), hint="train into another folder")
    differences = list(_differences(metadata["identity"], identity))
    if differences:
        raise UsageError(
            "the saved run is another one: " + ", ".join(differences[:3]),
            where=str(path),
            hint="resume with its settings and data, or train into another folder",
        )
    try:
        parts.restore({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"does not hold the tensors of this run ({error})", where=str(path), hint="train into another folder"
        ) from None
    return Place(step=metadata["step"], seconds=metadata["seconds"], log_bytes=metadata["log_bytes"])


def _differences(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} was {old}, is {new}"
