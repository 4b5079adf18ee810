"""One training step: the gradients of a batch over all ranks, then the optimizers."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from codec.errors import UsageError
from codec.quantization.recipe import Recipe
from trainer.compute.attention import choose_attention
from trainer.compute.device import Forward, autocast, compiled, precision, synchronize, to_device
from trainer.compute.ranks import Ranks
from trainer.model.gpt import GPT
from trainer.model.init import initialize
from trainer.optim.averaging import find_average
from trainer.optim.muon import optimizers
from trainer.optim.qat import fake_quantized
from trainer.optim.schedule import StepSettings
from trainer.presets.preset import Preset
from trainer.presets.train_config import TrainConfig
from trainer.run.state import TrainState

Batch = tuple[Tensor, Tensor]  # inputs, targets, each int64 (sequences of this rank, seq_len)
FindRecipe = Callable[[str], Recipe]  # by the name that the preset says


@dataclass(frozen=True, kw_only=True, slots=True)
class Stepper:
    """Changes `state`.  forward: the model or its compiled form.  recipe: rounds weights in steps that want it.

    attention: name of the implementation.
    """

    config: TrainConfig
    state: TrainState
    forward: Forward
    device: torch.device
    ranks: Ranks
    recipe: Recipe | None
    attention: str

    @classmethod
    def build(
        cls, preset: Preset, seed: int, device: torch.device, ranks: Ranks, find_recipe: FindRecipe | None = None
    ) -> "Stepper":
        """A freshly initialized model on the device, with optimizers and average.

        find_recipe: of the recipe that training rounds with, if the preset names one.
        Raises: UsageError for a recipe that it cannot round with; EnvironmentLacks when torch cannot compile.
        """
        config = preset.train
        attention, attend = choose_attention(device, precision(device))
        model = GPT(preset.model, attend)
        initialize(model, seed)
        to_device(model, device)
        recipe = _recipe(config.qat_recipe, find_recipe) if config.qat_recipe else None
        if recipe:
            with fake_quantized(model, recipe):  # refuses an unusable one now, not when the learning rate has fallen
                pass
        return cls(
            config=config,
            state=TrainState(
                model=model, optimizers=optimizers(model, config, ranks), average=find_average(model, config)
            ),
            forward=compiled(model, device) if config.compile else model,
            device=device,
            ranks=ranks,
            recipe=recipe,
            attention=attention,
        )

    def facts(self) -> dict[str, str | int]:
        """How large the model is, where and how its steps are computed, for the log."""
        gpu = self.device.type == "cuda"
        share = self.config.sequences // self.ranks.world
        return {
            "model_params": sum(weight.numel() for weight in self.state.model.parameters()),
            "world_size": self.ranks.world,
            "grad_accum_steps": -(-share // self.config.micro_batch),
            "attention": self.attention,
            "compile": int(self.config.compile),
            "device": torch.cuda.get_device_name(self.device).replace(" ", "_") if gpu else "cpu",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def gradients(self, batch: Batch, settings: StepSettings) -> tuple[float, float]:
        """Leave the clipped gradient of the whole batch in the weights.

        -> (mean loss in nats per token, norm of the gradient before clipping), equal on all ranks.
        """
        model = self.state.model.train()
        model.looping = settings.looping
        for optimizer in self.state.optimizers:
            optimizer.zero_grad()
        with self._rounding(settings):
            loss = self._accumulated(batch)
        synchronize(self.device)
        self.ranks.barrier()  # a rank that died in its passes is noticed here, and not waited for below
        self.ranks.average([loss, *(weight.grad for weight in model.parameters() if weight.grad is not None)])
        norm = clip_grad_norm_(model.parameters(), self.config.grad_clip or math.inf)
        return loss.item(), norm.item()

    def update(self, step: int, settings: StepSettings) -> None:
        """Let the optimizers use the gradient, and the average the new weights.  step: this one, counted from 1."""
        muon, adam = self.state.optimizers
        for group in muon.param_groups + adam.param_groups:
            group["lr"] = group["peak_lr"] * settings.lr
        for group in muon.param_groups:
            group["momentum"] = settings.momentum
        muon.step()
        adam.step()
        if self.state.average:
            self.state.average.update(self.state.model, step, settings)

    def warm_up(self, batch: Batch, first: StepSettings) -> None:
        """`warmup_steps` steps of every kind that the run will take, then all as it was, random numbers included.

        Compilers and allocators remember them, so that their work is not counted as training time.
        first: the settings of step 0.
        """
        saved = self.state.snapshot()
        rounding = bool(self.recipe)
        kinds = {(first.looping, first.qat), (True, first.qat), (True, rounding)}
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            for looping, qat in sorted(kinds):
                settings = replace(first, looping=looping, qat=qat)
                for step in range(self.config.warmup_steps):
                    self.gradients(batch, settings)
                    self.update(step, settings)
        self.state.restore(saved)

    def _rounding(self, settings: StepSettings) -> AbstractContextManager[None]:
        if settings.qat and self.recipe:
            return fake_quantized(self.state.model, self.recipe)
        return nullcontext()

    def _accumulated(self, batch: Batch) -> Tensor:
        """Add up the gradients of the micro-batches of this rank; -> mean loss, float32 scalar."""
        inputs, targets = (tensor.to(self.device) for tensor in batch)
        size, total = self.config.micro_batch, torch.zeros((), device=self.device)
        for part_inputs, part_targets in zip(inputs.split(size), targets.split(size), strict=True):
            with autocast(self.device):
                loss = self.forward(part_inputs, part_targets) * (len(part_inputs) / len(inputs))
            loss.backward()
            total += loss.detach()
        return total


def _recipe(name: str, find: FindRecipe | None) -> Recipe:
    if find is None:
        raise UsageError(f"the preset trains through recipe `{name}`", hint="pass find_recipe=codec.load_recipe")
    return find(name)
