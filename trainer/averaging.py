"""An exponential moving average of the weights, kept in float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """shadow <- decay * shadow + (1 - decay) * weights after every step; it starts as the first weights.

    float32 whatever the weights' dtype: sums in bfloat16 lose the small steps that averaging is about.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow: dict[str, Tensor] = {
            name: weight.detach().to(torch.float32, copy=True) for name, weight in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Fold in the model's present weights."""
        weights = [weight.float() for weight in model.parameters()]
        torch._foreach_lerp_(list(self.shadow.values()), weights, 1 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights; its own come back at the end."""
        live = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        try:
            model.load_state_dict(self.shadow)
            yield
        finally:
            model.load_state_dict(live)
