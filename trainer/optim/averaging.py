"""Averages of the weights along a run, in float32: sums in bfloat16 lose the small steps that averaging is about."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainer.optim.schedule import StepSettings
from trainer.presets.train_config import TrainConfig


class Average(ABC):
    """count: how often weights were folded in, int64 scalar.  sums: float32 by parameter name."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.config = config
        self.count = torch.zeros((), dtype=torch.int64)
        self.sums: dict[str, Tensor] = {
            name: weight.detach().to(torch.float32, copy=True) for name, weight in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, settings: StepSettings) -> None:
        """Fold in the model's weights if it is time.  step: steps done; settings: of the last of them."""
        if self.wants(step, settings):
            self.fold([weight.float() for weight in model.parameters()])
            self.count += 1

    @abstractmethod
    def wants(self, step: int, settings: StepSettings) -> bool:
        """Whether the weights after `step` steps belong to the average."""

    @abstractmethod
    def fold(self, weights: list[Tensor]) -> None:
        """Add float32 weights, in the order of the model's parameters."""

    @abstractmethod
    def mean(self) -> list[Tensor]:
        """The averaged weights, float32, in the same order; called once something was folded in."""

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights, its own as long as nothing was folded in; they come back at the end."""
        weights = [weight.detach() for weight in model.parameters()]
        live = [weight.clone() for weight in weights]
        try:
            torch._foreach_copy_(weights, self.mean() if self.count else live)
            yield
        finally:
            torch._foreach_copy_(weights, live)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, live tensor) of all there is to save."""
        yield "count", self.count
        yield from self.sums.items()


class ExponentialMovingAverage(Average):
    """sums <- decay * sums + (1 - decay) * weights after every step.

    It starts as the run's first weights, without bias correction, or at part `ema_from` of the run as those of then.
    Source: pull requests 1176 and 1716.
    """

    def wants(self, step: int, settings: StepSettings) -> bool:
        return settings.done >= self.config.ema_from

    def fold(self, weights: list[Tensor]) -> None:
        starting = self.config.ema_from and not self.count
        torch._foreach_lerp_(list(self.sums.values()), weights, 1.0 if starting else 1 - self.config.ema_decay)

    def mean(self) -> list[Tensor]:
        return list(self.sums.values())


class StochasticWeightAverage(Average):
    """The mean of the weights after every `swa_every` steps while the learning rate is below `swa_below` of its peak.

    Source: pull requests 162 and 339.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        super().__init__(model, config)
        torch._foreach_zero_(list(self.sums.values()))

    def wants(self, step: int, settings: StepSettings) -> bool:
        return settings.lr < self.config.swa_below and step % self.config.swa_every == 0

    def fold(self, weights: list[Tensor]) -> None:
        torch._foreach_add_(list(self.sums.values()), weights)

    def mean(self) -> list[Tensor]:
        return list(torch._foreach_div(list(self.sums.values()), float(self.count)))


def find_average(model: nn.Module, config: TrainConfig) -> Average | None:
    """The average that the config asks for; its initial state is that of the model now."""
    if config.ema_decay:
        return ExponentialMovingAverage(model, config)
    return StochasticWeightAverage(model, config) if config.swa_every else None
