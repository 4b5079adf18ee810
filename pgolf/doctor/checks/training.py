"""Steps of a preset as `pgolf train` takes them, on made-up tokens: time, pace, part of the card's peak."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pgolf.doctor.cards import AIM, PUBLISHED_STEP_MS, peak_flops
from pgolf.doctor.checks.synthetic import write_shard
from pgolf.doctor.outcome import Measured, Row
from pgolf.doctor.plan import CARDS, Plan

if TYPE_CHECKING:
    import torch

    from trainer.model.gpt import GPT
    from trainer.presets.preset import Preset
    from trainer.run.step import Stepper

SHARD_TOKENS = 4_000_000  # of the made-up shard; a dry run's has a thousandth
ENOUGH_TO_LEARN = 100  # steps after which a loss that did not fall is wrong
LEFT_FOR_WHOLE_STEPS = 0.2  # of the time


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """Of the steps that were taken: seconds and whether layers looped, of each; first and last loss in nats."""

    seconds: tuple[float, ...]
    looping: tuple[bool, ...]
    losses: tuple[float, float]

    def milliseconds(self, looping: bool) -> float | None:
        """Mean of those with, or without, loops."""
        taken = [each for each, looped in zip(self.seconds, self.looping, strict=True) if looped == looping]
        return 1000 * sum(taken) / len(taken) if taken else None


def steps(name: str, plan: Plan, seconds: float) -> Measured:
    """The steps of one preset that fit into the time.

    Each has one card's share of the preset's tokens, but the whole of Muon, which 8 cards would share: so whole steps,
    with all tokens on this card, follow, and they are what is held against 8 times the published time.
    """
    import torch

    from trainer.compute.device import find_device

    until = time.monotonic() + seconds
    device = find_device(plan.device)
    notes: list[str] = []
    preset = one_card(plan.preset(name), plan)
    while True:
        try:
            return _measured(name, preset, plan, device, until, notes)
        except torch.OutOfMemoryError:
            if preset.train.micro_batch == 1:
                raise
            preset = replace(preset, train=replace(preset.train, micro_batch=preset.train.micro_batch // 2))
            notes.append(f"micro_batch {preset.train.micro_batch}: a larger one does not fit into the card's memory")
        torch.cuda.empty_cache()


def one_card(preset: "Preset", plan: Plan) -> "Preset":
    """The preset with a card's share of each step, and without what has nothing to do with the time of a step."""
    share = preset.train.batch_tokens // CARDS
    train = replace(
        preset.train.shortened(plan.steps),
        batch_tokens=share,
        micro_batch=min(preset.train.micro_batch, share // preset.train.seq_len),
        compile=plan.compile,
        warmup_steps=1,
        max_seconds=0.0,
        reserve_seconds=0.0,
        val_every=0,
    )
    return replace(preset, train=train)


def _measured(
    name: str, preset: "Preset", plan: Plan, device: "torch.device", until: float, notes: list[str]
) -> Measured:
    import torch

    from trainer.compute.ranks import Ranks
    from trainer.run.step import Stepper

    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with TemporaryDirectory(prefix="pgolf-doctor-") as folder:
        write_shard(Path(folder), SHARD_TOKENS // (1000 if plan.dry else 1), preset.model.vocab_size)
        started = time.monotonic()
        stepper = Stepper.build(preset, 0, device, Ranks())
        first = _warm_up(stepper, preset, folder)
        prepared = time.monotonic() - started
        reserve = LEFT_FOR_WHOLE_STEPS * max(until - time.monotonic(), 0)
        taken = _take(stepper, preset, folder, until - reserve)
        whole = _whole_steps(stepper, preset, plan, folder, until)
    rate = preset.train.batch_tokens * len(taken.seconds) / sum(taken.seconds)
    card = torch.cuda.get_device_name(device) if on_gpu else ""
    row = _row(name, preset, taken, rate, flops(stepper.state.model, taken, preset), peak_flops(card))
    row |= _whole(None if plan.dry else PUBLISHED_STEP_MS.get(name), preset, whole)
    row |= {
        "prepare s": prepared,
        "first step s": first,
        "peak memory MiB": torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else None,
        "attention": stepper.attention,
        "compiled": "yes" if preset.train.compile else "no",
    }
    return Measured(rows=(row,), wrong=tuple(_wrong(taken)), notes=(*notes, *_limits(plan, taken)))


def _warm_up(stepper: "Stepper", preset: "Preset", folder: str) -> float:
    """Seconds of a step of every kind, compilation included; all is afterwards as it was."""
    from trainer.compute.device import synchronize
    from trainer.optim.schedule import step_settings

    started = time.monotonic()
    stepper.warm_up(_loader(preset, folder).batch(0), step_settings(preset.train, 0, 0.0))
    synchronize(stepper.device)
    return time.monotonic() - started


def _take(stepper: "Stepper", preset: "Preset", folder: str, until: float) -> Steps:
    """At least one step, and at most the preset's."""
    from trainer.compute.device import synchronize
    from trainer.optim.schedule import step_settings

    loader, seconds, looping, losses = _loader(preset, folder), [], [], []
    for step in range(preset.train.steps):
        started, settings = time.monotonic(), step_settings(preset.train, step, 0.0)
        loss, _ = stepper.gradients(loader.batch(step), settings)
        stepper.update(step + 1, settings)
        synchronize(stepper.device)
        seconds.append(time.monotonic() - started)
        looping.append(bool(preset.model.loops) and settings.looping)
        losses.append(loss)
        if time.monotonic() > until:
            break
    return Steps(seconds=tuple(seconds), looping=tuple(looping), losses=(losses[0], losses[-1]))


def _whole_steps(stepper: "Stepper", preset: "Preset", plan: Plan, folder: str, until: float) -> float | None:
    """Milliseconds of a step with all tokens, as the run mixes those with and without loops; None: no time left."""
    whole = replace(preset, train=replace(preset.train, batch_tokens=preset.train.batch_tokens * CARDS))
    stepper, mean = replace(stepper, config=whole.train), 0.0
    early = whole.train.loop_from if whole.model.loops else 1.0
    for at, share in ((0, early), (whole.train.steps - 1, 1 - early)):
        if not share:
            continue
        if time.monotonic() > until:
            return None
        mean += share * _repeat(stepper, whole, folder, at, plan.whole_steps)
    return 1000 * mean


def _repeat(stepper: "Stepper", preset: "Preset", folder: str, at: int, count: int) -> float:
    """Mean seconds of `count` steps with the settings of step `at`."""
    from trainer.compute.device import synchronize
    from trainer.optim.schedule import step_settings

    loader, settings = _loader(preset, folder), step_settings(preset.train, at, 0.0)
    started = time.monotonic()
    for step in range(count):
        stepper.gradients(loader.batch(step), settings)
        stepper.update(preset.train.steps + step, settings)
    synchronize(stepper.device)
    return (time.monotonic() - started) / count


def _loader(preset: "Preset", folder: str):  # type: ignore[no-untyped-def]
    from trainer.data.loader import Loader

    train = preset.train
    return Loader(
        folder,
        kind=train.loader,
        seq_len=train.seq_len,
        sequences=train.sequences,
        vocab_size=preset.model.vocab_size,
        seed=0,
    )


def flops(model: "GPT", taken: Steps, preset: "Preset") -> float:
    """Operations per token of a step, mean of those taken: 6 for each weight that multiplies it, and attention.

    A layer that loops multiplies once a pass.  Attention is 12 operations for each position, channel and pass, halved,
    because it is causal.  Optimizers and elementwise work are left out.  Source: PaLM (Chowdhery et al. 2022), its
    appendix B; it does not halve.
    """
    from torch import nn

    config = model.config
    blocks = [
        sum(layer.weight.numel() for layer in block.modules() if isinstance(layer, nn.Linear)) for block in model.blocks
    ]
    linear = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    outside = linear - sum(blocks) + model.tok_emb.weight.numel()
    total = 0.0
    for looping in taken.looping:
        order = config.order(looping)
        attention = 6 * config.dim * config.seq_len * len(order)
        total += 6 * (outside + sum(blocks[layer] for layer in order)) + attention
    return total / len(taken.looping)


def _row(name: str, preset: "Preset", taken: Steps, rate: float, operations: float, peak: float | None) -> Row:
    return {
        "preset": name,
        "steps": len(taken.seconds),
        "tokens a step": preset.train.batch_tokens,
        "ms a step": 1000 * sum(taken.seconds) / len(taken.seconds),
        "ms without loops": taken.milliseconds(False) if preset.model.loops else None,
        "ms with loops": taken.milliseconds(True) if preset.model.loops else None,
        "tokens/s": rate,
        "MFU": None if peak is None else rate * operations / peak,
        "first loss": taken.losses[0],
        "last loss": taken.losses[1],
    }


def _whole(published: float | None, preset: "Preset", milliseconds: float | None) -> Row:
    """published: milliseconds of the step on 8 cards.  The last column is the aim: at least 1 / 1.15."""
    tokens = preset.train.batch_tokens * CARDS
    return {
        "whole step ms": milliseconds,
        "tokens/s, whole steps": None if milliseconds is None else 1000 * tokens / milliseconds,
        "published ms x 8": None if published is None else CARDS * published,
        "published tokens/s per card": None if published is None else 1000 * tokens / published / CARDS,
        "of the published pace": None
        if published is None or milliseconds is None
        else CARDS * published / milliseconds,
    }


def _wrong(taken: Steps) -> list[str]:
    first, last = taken.losses
    if math.isfinite(last) and (len(taken.seconds) < ENOUGH_TO_LEARN or last < first):
        return []
    return [f"the loss went from {first:.3f} to {last:.3f} in {len(taken.seconds)} steps"]


def _limits(plan: Plan, taken: Steps) -> list[str]:
    found = []
    if len(taken.seconds) < plan.steps:
        found.append(f"{len(taken.seconds)} of {plan.steps} steps fitted into the time")
    if plan.dry:
        found.append("a model of some hundred thousand weights on a CPU: the published time is not comparable")
    else:
        found.append(f"the aim on an H100 is at least {1 / AIM:.2f} of the published pace; Muon is not shared here")
    return found
