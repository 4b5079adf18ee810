"""The state of a run: how it begins, and the file from which it goes on after a kill."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from codec.errors import InputError, UsageError
from codec.storage.checkpoint import read_checkpoint, weights_sha256, write_checkpoint
from trainer.model.gpt import GPT
from trainer.optim.averaging import Average

_ADAM = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPosition:
    """Where a run stands: steps done, seconds trained, lengths of its log and metrics, seconds of its other phases."""

    step: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    metrics_bytes: int = 0
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainState:
    """Everything that training changes.  All ranks hold the same values, so one of them can save for all."""

    model: GPT
    optimizers: tuple[Optimizer, ...]
    average: Average | None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all there is to save, the live tensors themselves.

        A weight that no optimizer has keeps its gradient: nothing clears it, so it counts in every later norm.
        """
        optimizer_of = self._optimizer_of()
        for name, weight in self.model.named_parameters():
            yield f"weights/{name}", weight
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(weight, {}).items():
                    yield f"{key}/{name}", value
            if id(weight) not in optimizer_of and weight.grad is not None:
                yield f"gradient/{name}", weight.grad
        if self.average:
            yield from ((f"average/{name}", tensor) for name, tensor in self.average.tensors())

    def is_finite(self) -> bool:
        """Whether all of it is."""
        return all(bool(tensor.isfinite().all()) for _, tensor in self.tensors())

    @contextmanager
    def exported(self) -> Iterator[GPT]:
        """The model as it is evaluated and exported: averaged weights if there are, layers that loop do."""
        model = self.model.eval()
        model.looping = True
        with self.average.applied(model) if self.average else nullcontext():
            yield model

    @contextmanager
    def arrays(self) -> Iterator[dict[str, np.ndarray]]:
        """Of the exported model, every tensor as float32; valid inside, as they may share its memory."""
        with self.exported() as model:
            yield {name: to_array(tensor.float()) for name, tensor in model.state_dict().items()}

    def sha256(self) -> str:
        """Of those, as `codec.storage.checkpoint.weights_sha256` counts."""
        with self.arrays() as arrays:
            return weights_sha256(arrays)

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all tensors, for `restore`."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors()}

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Become again what `tensors` once gave.

        AdamW makes its buffers at its first step, so here they are made or dropped as they were; gradients likewise.
        """
        optimizer_of = self._optimizer_of()
        for name, weight in self.model.named_parameters():
            optimizer = optimizer_of.get(id(weight))
            if isinstance(optimizer, AdamW):
                made = {key: saved[f"{key}/{name}"] for key in _ADAM if f"{key}/{name}" in saved}
                optimizer.state[weight] = {
                    key: tensor.to(weight.device, torch.float32 if key == "step" else weight.dtype, copy=True)
                    for key, tensor in made.items()
                }
            gradient = None if optimizer else saved.get(f"gradient/{name}")
            weight.grad = None if gradient is None else gradient.to(weight.device, weight.dtype, copy=True)
        for name, tensor in self.tensors():
            tensor.copy_(saved[name])

    def _optimizer_of(self) -> dict[int, Optimizer]:
        """id of a parameter -> its optimizer."""
        return {
            id(weight): optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for weight in group["params"]
        }


def export_checkpoint(path: str | Path, state: TrainState, notes: dict[str, Any]) -> None:
    """Write the checkpoint, in one atomic step."""
    with state.arrays() as arrays:
        write_checkpoint(path, arrays, notes)


def save_state(path: str | Path, state: TrainState, position: RunPosition, identity: dict[str, Any]) -> None:
    """Write weights, optimizer buffers, average and position in one atomic step.

    identity: plain JSON that decides the run (preset, sizes, seed, data); a resumed run must have the same.
    """
    arrays = {name: to_array(tensor) for name, tensor in state.tensors()}
    write_checkpoint(path, arrays, {**asdict(position), "identity": identity})


def load_state(path: str | Path, state: TrainState, identity: dict[str, Any]) -> RunPosition:
    """Put a saved state back into `state`.

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
        state.restore({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
        return RunPosition(**{entry.name: metadata[entry.name] for entry in fields(RunPosition)})
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"does not hold the tensors of this run ({error})", where=str(path), hint="train into another folder"
        ) from None


def to_array(tensor: Tensor) -> np.ndarray:
    """The values on the CPU; bfloat16, which numpy lacks, becomes float32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()


def _differences(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} was {old}, is {new}"
