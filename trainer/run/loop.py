"""One training run: data, steps, log, resumable state, checkpoint; in one process or in those that torchrun starts."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codec.errors import PgolfError
from codec.progress import Progress
from trainer.compute.device import autocast, cpu_threads, find_device, synchronize
from trainer.compute.ranks import RankLost, Ranks
from trainer.data.loader import Loader
from trainer.model.gpt import GPT
from trainer.optim.schedule import StepSettings, step_settings
from trainer.presets.preset import Preset
from trainer.presets.train_config import TrainConfig
from trainer.run.run_folder import CHECKPOINT, STATE, LogHead, RunFiles, check_folder
from trainer.run.run_identity import open_data
from trainer.run.signals import held, interruptions
from trainer.run.state import RunPosition, export_checkpoint, load_state, save_state
from trainer.run.step import FindRecipe, Stepper
from trainer.run.trackers import Opener, find_tracker

Evaluate = Callable[[GPT], tuple[float, float]]  # model -> (val_loss in nats per token, val_bpb)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """checkpoint: its file, and the `codec.storage.checkpoint.weights_sha256` of what is in it.

    seconds: of training, without validation and saving.
    """

    checkpoint: Path
    weights_sha256: str
    steps: int
    tokens: int
    seconds: float
    val_loss: float
    val_bpb: float


def train(
    preset: Preset,
    data_dir: str | Path,
    out_dir: str | Path,
    *,
    evaluate: Evaluate,
    seed: int = 0,
    steps: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    resume: bool = False,
    tokenizer: str | Path | None = None,
    trackers: Sequence[str] = (),
    progress: Progress | None = None,
    find_recipe: FindRecipe | None = None,
    head: LogHead | None = None,
) -> TrainResult:
    """Train a preset and write checkpoint.safetensors, train.log, metrics.jsonl and state.safetensors into `out_dir`.

    evaluate: called with the model to export, in all processes, at the end and every `val_every` steps.
    steps: instead of the preset's, its schedule in proportion.  threads: of torch, for this run.
    device: "cpu", "cuda" or "auto".
    resume: go on from `out_dir`'s state if there is one; with the same threads and number of processes the weights
    equal those of an uninterrupted run bit for bit, unless a wall-clock cap is set.  trackers: see its module.
    find_recipe: codec's load_recipe, for a preset that trains through a recipe's rounding.  head: see its class.
    Ctrl-C and SIGTERM save the state after the present step, then raise KeyboardInterrupt.
    Processes of torchrun all call this alike and see the same folders; the first alone writes and reports.

    Raises: UsageError for a folder in use, a resume with other settings, or processes that cannot share a step;
    InputError for unusable data; EnvironmentLacks without the device, compiler or tracker; RankLost when another
    process is gone; PgolfError when the loss is not finite.  The last saved state stays in every case.
    """
    ranks, out_dir = Ranks.launched(), Path(out_dir)
    preset = preset if steps is None else replace(preset, train=preset.train.shortened(steps))
    check_folder(out_dir, resume)
    openers = [find_tracker(name) for name in trackers]
    torch_device = find_device(device, ranks.local)
    loader, identity = open_data(preset, data_dir, tokenizer, seed, ranks)
    with cpu_threads(threads), ranks.joined(torch_device):
        stepper = Stepper.build(preset, seed, torch_device, ranks, find_recipe)
        run = _Run.start(preset, loader, out_dir, identity, stepper, resume, openers, head or LogHead())
        try:
            run.warm_up()
            run.steps(evaluate, progress if ranks.first else None)
            return run.finish(evaluate)
        finally:
            if run.records:
                run.records.close()


@dataclass(kw_only=True, slots=True)
class _Run:
    """The moving parts of one run.  records: open files, of the first rank only."""

    preset: Preset
    loader: Loader
    out_dir: Path
    identity: dict[str, Any]
    stepper: Stepper
    step: int
    seconds: float
    phases: dict[str, float]
    records: RunFiles | None = None

    @classmethod
    def start(
        cls,
        preset: Preset,
        loader: Loader,
        out_dir: Path,
        identity: dict[str, Any],
        stepper: Stepper,
        resume: bool,
        openers: Sequence[Opener],
        head: LogHead,
    ) -> "_Run":
        """A fresh run, or the one saved in `out_dir`."""
        saved = resume and (out_dir / STATE).exists()
        position = load_state(out_dir / STATE, stepper.state, identity) if saved else RunPosition()
        run = cls(
            preset=preset,
            loader=loader,
            out_dir=out_dir,
            identity=identity,
            stepper=stepper,
            step=position.step,
            seconds=position.seconds,
            phases={"warmup": 0.0, "val": 0.0, "save": 0.0, **position.phases},
        )
        if loader.ranks.first:
            run.records = RunFiles.open(out_dir, position, openers, identity, preset.train.steps, head)
            data = {"train_tokens": loader.tokens, "train_shards": len(loader.paths)}
            run.records.introduce(position.step, identity, {**data, **stepper.facts()})
        return run

    @property
    def config(self) -> TrainConfig:
        return self.preset.train

    @property
    def ranks(self) -> Ranks:
        return self.stepper.ranks

    @property
    def settings(self) -> StepSettings:
        """What the next step does; the clock in it is the same on all ranks."""
        return step_settings(self.config, self.step, self.seconds)

    @property
    def finished(self) -> bool:
        return self.settings.done >= 1

    def warm_up(self) -> None:
        """Let compilers and allocators do their work outside the training time."""
        if self.config.warmup_steps and not self.finished:
            with self.timed("warmup"):
                self.stepper.warm_up(self.loader.batch(0), step_settings(self.config, 0, 0.0))

    def steps(self, evaluate: Evaluate, progress: Progress | None) -> None:
        """Train to the end, with log lines, validations and saved states on the way."""
        config = self.config
        with interruptions() as interrupted:
            while not self.finished:
                settings, loss, norm = self.advance()
                last = self.finished
                if self.records and (last or self.step % config.log_every == 0):
                    values = {"grad_norm": norm, "lr": settings.lr, "momentum": settings.momentum}
                    tokens = self.step * config.batch_tokens
                    self.records.trained(self.step, self.seconds, loss, {**values, "tokens": tokens})
                if config.val_every and self.step % config.val_every == 0 and not last:
                    self.validate(evaluate)
                if progress:
                    progress(self.step, f"loss {loss:.3f}, {_minutes(self.seconds_left())} left")
                # Read once, after the callback: a signal between saving and leaving must not be lost.
                stopping = self.ranks.any_true(interrupted.is_set())
                if last or stopping or self.step % config.save_every == 0:
                    with held():
                        self.save()
                if stopping:
                    with suppress(RankLost):  # torchrun ends all when one has left, so nobody does before all is saved
                        self.ranks.barrier()
                    raise KeyboardInterrupt

    def advance(self) -> tuple[StepSettings, float, float]:
        """One step: its settings, loss and gradient norm.

        A loss or gradient that is not finite changes nothing and raises.
        """
        started, settings = time.perf_counter(), self.settings
        loss, norm = self.stepper.gradients(self.loader.batch(self.step), settings)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise self.diverged(f"the loss of step {self.step + 1} is {loss}, its gradient norm {norm}")
        self.step += 1
        self.stepper.update(self.step, settings)
        synchronize(self.stepper.device)
        [self.seconds] = self.ranks.broadcast([self.seconds + time.perf_counter() - started])
        return settings, loss, norm

    def validate(self, evaluate: Evaluate) -> tuple[float, float]:
        """(val_loss, val_bpb) of the weights that would be exported now, equal in all processes."""
        with self.timed("val"), self.stepper.state.exported() as model, autocast(self.stepper.device):
            loss, bpb = evaluate(model)
        if self.records:
            self.records.validated(self.step, self.seconds, loss, bpb)
        return loss, bpb

    def save(self) -> None:
        """Write the state from which `resume` goes on.

        Raises: PgolfError when it is not finite.
        """
        self.check_finite()
        if self.records:
            with self.timed("save"):
                position = RunPosition(
                    step=self.step,
                    seconds=self.seconds,
                    log_bytes=self.records.log.bytes,
                    metrics_bytes=self.records.metrics.bytes,
                    phases=self.phases,
                )
                save_state(self.out_dir / STATE, self.stepper.state, position, self.identity)

    def check_finite(self) -> None:
        """The loss of a step tells of the weights before it only.

        Raises: PgolfError.
        """
        if not self.stepper.state.is_finite():
            raise self.diverged(f"the weights after step {self.step}, or their averages, are not finite")

    def diverged(self, what: str) -> PgolfError:
        """The error that says so."""
        kept = "; the last saved state is kept" if (self.out_dir / STATE).exists() else ""
        return PgolfError(what, where=str(self.out_dir), hint=f"lower the learning rates{kept}")

    def finish(self, evaluate: Evaluate) -> TrainResult:
        """Write the checkpoint (every tensor as float32), validate, and close the log with sizes and times.

        The score joins the checkpoint's metadata later: hours of validation must not be able to lose the weights.
        """
        self.check_finite()
        if self.records and self.step < self.config.steps:
            self.records.log.stopped_early(self.step, self.config.steps, self.seconds)
        state, path = self.stepper.state, self.out_dir / CHECKPOINT
        if self.records:
            export_checkpoint(path, state, self.notes())
        val_loss, val_bpb = self.validate(evaluate)
        if self.records:
            export_checkpoint(path, state, {**self.notes(), "val_bpb": val_bpb})
        result = TrainResult(
            checkpoint=path,
            weights_sha256=state.sha256(),
            steps=self.step,
            tokens=self.step * self.config.batch_tokens,
            seconds=self.seconds,
            val_loss=val_loss,
            val_bpb=val_bpb,
        )
        if self.records:
            self.records.log.add(f"Serialized model: {result.checkpoint.stat().st_size} bytes")
            self.records.log.add(f"weights sha256:{result.weights_sha256}")
            self.records.log.phases({"train": self.seconds, **self.phases})
        return result

    def notes(self) -> dict[str, Any]:
        """The checkpoint's metadata, but for its score."""
        return {
            "config": self.preset.model.to_dict(),
            "preset": self.preset.name,
            "description": self.preset.description,
            "fixed_vocab": self.preset.fixed_vocab,
            "train": self.preset.train.to_dict(),
            "seed": self.identity["seed"],
            "steps": self.step,
            "tokens": self.step * self.config.batch_tokens,
            "train_seconds": round(self.seconds, 3),
            "tokenizer_sha256": self.identity["tokenizer_sha256"],
        }

    def seconds_left(self) -> float:
        """Expected training time to the end, at the mean speed so far."""
        by_steps = self.seconds / self.step * (self.config.steps - self.step)
        cap = self.config.max_seconds - self.config.reserve_seconds
        return min(by_steps, max(cap - self.seconds, 0.0)) if self.config.max_seconds else by_steps

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the time inside as that phase's."""
        synchronize(self.stepper.device)
        started = time.perf_counter()
        yield
        synchronize(self.stepper.device)
        self.phases[phase] += time.perf_counter() - started


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
