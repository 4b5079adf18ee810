"""Data, reference models and their training.

    >>> import trainer
    >>> preset = trainer.find_preset("cpu-demo")
    >>> preset.train.steps, preset.train.batch_tokens
    (800, 2048)
    >>> model = trainer.GPT(preset.model)
    >>> f"{sum(weights.numel() for weights in model.parameters()):,}"
    '1,063,770'
    >>> import torch
    >>> model.logits(torch.zeros(1, 16, dtype=torch.int64)).shape
    torch.Size([1, 16, 1024])

The part that makes data (`build_dataset`) needs no torch.
"""

from typing import TYPE_CHECKING

from codec.lazy import lazy

if TYPE_CHECKING:
    from trainer.calibration import Calibration, calibrate, own_samples
    from trainer.data.dataset import DataSummary, build_dataset
    from trainer.hooks import Hooks, relative_change, sampled_loss
    from trainer.model.config import GPTConfig
    from trainer.model.gpt import GPT
    from trainer.presets.catalog import PRESETS, find_preset
    from trainer.presets.preset import Preset
    from trainer.presets.train_config import TrainConfig
    from trainer.run.loop import TrainResult, train
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "trainer.calibration": ("Calibration", "calibrate", "own_samples"),
            "trainer.data.dataset": ("DataSummary", "build_dataset"),
            "trainer.hooks": ("Hooks", "relative_change", "sampled_loss"),
            "trainer.model.config": ("GPTConfig",),
            "trainer.model.gpt": ("GPT",),
            "trainer.presets.catalog": ("PRESETS", "find_preset"),
            "trainer.presets.preset": ("Preset",),
            "trainer.presets.train_config": ("TrainConfig",),
            "trainer.run.loop": ("TrainResult", "train"),
        },
    )

__all__ = [
    "GPT",
    "PRESETS",
    "Calibration",
    "DataSummary",
    "GPTConfig",
    "Hooks",
    "Preset",
    "TrainConfig",
    "TrainResult",
    "build_dataset",
    "calibrate",
    "find_preset",
    "own_samples",
    "relative_change",
    "sampled_loss",
    "train",
]
