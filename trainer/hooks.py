"""Calibration of any torch module from a user's own passes: what `calibrate` collects, in a file that `encode` reads.

    with Hooks(model) as hooks:
        for ids in batches:
            hooks.step(sampled_loss(model(ids).logits, generator), tokens=ids.numel())
    hooks.write("calibration.safetensors", "model.safetensors")

For moments and terms see trainer/calibration.py.
"""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.errors import UsageError
from codec.storage.calibration_file import CHECKPOINT
from codec.storage.safetensors_file import checkpoint_sha256
from trainer.calibration import Calibration, Moments, add_moments, drawn

TRANSPOSED = "Conv1D"  # the name of transformers' layer y = x W + b, whose rows are inputs


class Hooks:
    """Watches every linear layer, embedding and other parameter of a module while the `with` block lasts.

    model: its modules `nn.Linear`, `nn.Embedding` and those named Conv1D are watched, all other parameters by their
    gradients.  prefix: what the checkpoint's names have before the module's own.  A weight that two modules share has
    the name that comes first in `named_parameters`.

    Of a layer W of `Conv1D`, (inputs, outputs), the roles are exchanged: its `hessian` is that of the gradients of its
    outputs, its `sensitivity` the mean square of its inputs.  To second order the loss is the same form.

    Passes without gradients are not seen.  Weights ask for no gradient inside the block, and do again after it.
    """

    def __init__(self, model: nn.Module, *, prefix: str = "") -> None:
        self._model = model
        self._moments = _AnyMoments()
        self._batches = self._tokens = 0
        self._open = ExitStack()
        names = {id(weight): prefix + name for name, weight in model.named_parameters()}
        watched = [each for each in model.modules() if _is_watched(each)]
        self._layers = [(names[id(each.weight)], each) for each in watched]
        taken = {name for name, _ in self._layers}
        others = ((prefix + name, weight) for name, weight in model.named_parameters())
        self._others = {name: weight for name, weight in others if name not in taken}

    def __enter__(self) -> Self:
        self._open.enter_context(self._moments.attached(self._model, self._layers, self._others.values()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def step(self, loss: Tensor, *, tokens: int) -> None:
        """End a batch: run `loss` backward.  loss: a scalar, summed (not averaged) over that many tokens.

        Of a language model best the loss of targets that the model draws itself: `sampled_loss`.  Of a model without
        a loss: `relative_change`.
        Raises: UsageError for a loss that is no scalar with a gradient, or no tokens.
        """
        if loss.numel() != 1 or not loss.requires_grad or tokens < 1:
            raise UsageError(
                f"a loss of shape {tuple(loss.shape)} over {tokens} tokens",
                hint="pass a sum over the tokens of a batch",
            )
        loss.backward()
        self._moments.add_fishers(self._others)
        self._batches, self._tokens = self._batches + 1, self._tokens + tokens

    def calibration(self) -> Calibration:
        """What was found.  Raises: UsageError before the first `step`; InputError for numbers that are not finite."""
        if not self._batches:
            raise UsageError("no batch was seen", hint="call `step` for each, inside the `with` block")
        return self._moments.means(self._batches, self._batches, self._tokens)

    def write(self, path: str | Path, checkpoint: str | Path) -> Calibration:
        """The file for `--calibration`.  checkpoint: the safetensors file or index that holds the module's weights.

        Raises: as `calibration`; InputError for a checkpoint that is missing.
        """
        found = self.calibration()
        found.write(path, {"source": "hooks", "batch": 1, CHECKPOINT: checkpoint_sha256(checkpoint)})
        return found


def sampled_loss(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Cross entropy of targets drawn from the model's own distribution, summed over all positions (the true Fisher).

    logits: float (..., vocabulary).  generator: of their device, one for all batches.
    """
    flat_NV = logits.flatten(0, -2).float()
    return F.cross_entropy(flat_NV, drawn(flat_NV.detach().softmax(-1), generator), reduction="sum")


def relative_change(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """For models without a loss: calibrated by it, predicted nats are half of |change of the outputs|^2 / |outputs|^2.

    The product of the outputs with random directions: the squares of its derivative have the diagonal of J^T J as their
    mean (Hutchinson).  outputs: float (..., width).  generator: of their device, one for all batches.
    """
    values = outputs.float()
    directions = torch.randn(values.shape, generator=generator, device=values.device)
    per_token = values.detach().square().sum(-1).mean()
    return (values * directions).sum() / per_token.sqrt()


class _AnyMoments(Moments):
    def ran(self, name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        if not _is_transposed(module):
            super().ran(name, module, inputs, output)
            return
        if not output.requires_grad:
            output.requires_grad_()
        self.add_squares(name, inputs[0].detach().float().square())
        output.register_hook(lambda gradient: add_moments(self.inputs, name, gradient))


def _is_watched(module: Any) -> bool:
    return isinstance(module, nn.Linear | nn.Embedding) or _is_transposed(module)


def _is_transposed(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return type(module).__name__ == TRANSPOSED and isinstance(weight, nn.Parameter) and weight.ndim == 2
