"""What a step does, decided from how far the run is: pure, so that ranks agree and a resumed run repeats it."""

from dataclasses import dataclass

from trainer.presets.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSettings:
    """lr: factor on every peak learning rate.  momentum: Muon's.  looping: layers that loop do.  qat: forward passes
    see rounded weights.  done: part of the run before this step, 0 to 1."""

    lr: float
    momentum: float
    looping: bool
    qat: bool
    done: float


def step_settings(config: TrainConfig, step: int, seconds: float) -> StepSettings:
    """The settings of `step`, counted from 0, after `seconds` of training; validation and saving do not count.

    Source: the training loops of pull requests 162, 339, 1176 (warm-down in steps) and 1716 (in parts of the run).
    """
    cap = config.max_seconds - config.reserve_seconds
    done = min(max(step / config.steps, seconds / cap if config.max_seconds else 0.0), 1.0)
    lr = max(_warmed_down(config, step, seconds, cap, done), config.min_lr)
    low, high = config.momentum
    risen = min(step / config.momentum_steps, 1.0) if config.momentum_steps else 1.0
    return StepSettings(
        lr=lr,
        momentum=(1 - risen) * low + risen * high,
        looping=done >= config.loop_from,
        qat=lr < config.qat_below,
        done=done,
    )


def _warmed_down(config: TrainConfig, step: int, seconds: float, cap: float, done: float) -> float:
    """1, then a straight line to 0 at the end of the run."""
    if config.warmdown:
        return min((1 - done) / config.warmdown, 1.0)
    if not config.warmdown_steps:
        return 1.0
    # The originals watch the clock alone under a cap; a run that its steps end first would never cool down.
    left = float(config.steps - step)
    if config.max_seconds and seconds:
        left = min(left, (cap - seconds) * max(step, 1) / seconds)
    return min(max(left, 0.0) / config.warmdown_steps, 1.0)
