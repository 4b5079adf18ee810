"""One training run in one process: data, steps, log, resumable state, checkpoint."""

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from codec.checkpoint import write_checkpoint
from codec.errors import EnvironmentLacks, PgolfError, UsageError
from codec.files import read_bytes
from codec.shards import find_tokenizer
from trainer import schedule
from trainer.averaging import WeightAverage
from trainer.loader import Loader
from trainer.log import TrainLog
from trainer.model import GPT
from trainer.muon import optimizers
from trainer.presets import Preset, TrainConfig
from trainer.state import Parts, Place, initialize, load_state, save_state

CHECKPOINT, LOG, STATE = "checkpoint.safetensors", "train.log", "state.safetensors"

Evaluate = Callable[[GPT], tuple[float, float]]  # model -> (val_loss in nats per token, val_bpb)
Progress = Callable[[int, str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """checkpoint: its file.  seconds: of training, without validation and saving."""

    checkpoint: Path
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
    progress: Progress | None = None,
) -> TrainResult:
    """Train a preset and write checkpoint.safetensors, train.log and state.safetensors into `out_dir`.

    evaluate: called with the model to export, at the end and every `val_every` steps.  steps: instead of the
    preset's.  threads: of torch, for this run.  device: "cpu", "cuda" or "auto".  resume: go on from `out_dir`'s
    state if there is one; with the same thread count the weights equal those of an uninterrupted run bit for bit,
    unless a wall-clock cap is set.  tokenizer: the data folder's if None.
    Ctrl-C and SIGTERM save the state after the present step, then raise KeyboardInterrupt.

    Raises: UsageError for a folder in use or a resume with other settings; InputError for unusable data;
    EnvironmentLacks without a CUDA device; PgolfError when the loss is not finite (the last state stays).
    """
    preset = preset if steps is None else replace(preset, train=replace(preset.train, steps=steps))
    out_dir = Path(out_dir)
    _check_folder(out_dir, resume)
    place = _device(device)
    loader = Loader(
        data_dir,
        seq_len=preset.train.seq_len,
        sequences=preset.train.sequences,
        vocab_size=preset.model.vocab_size,
        seed=seed,
    )
    sha256 = hashlib.sha256(read_bytes(tokenizer or find_tokenizer(data_dir))).hexdigest()
    loader.batch(0)  # ids of another tokenizer: find out before anything is written
    with _threads(threads):
        run = _Run.start(preset, loader, out_dir, seed, sha256, place, resume)
        try:
            run.steps(evaluate, progress)
            return run.finish(evaluate)
        finally:
            run.log.close()


@dataclass(kw_only=True, slots=True)
class _Run:
    """The moving parts of one run."""

    preset: Preset
    loader: Loader
    out_dir: Path
    identity: dict[str, Any]
    device: torch.device
    parts: Parts
    log: TrainLog
    step: int
    seconds: float
    phases: dict[str, float] = field(default_factory=lambda: {"val": 0.0, "save": 0.0})

    @classmethod
    def start(
        cls,
        preset: Preset,
        loader: Loader,
        out_dir: Path,
        seed: int,
        tokenizer_sha256: str,
        device: torch.device,
        resume: bool,
    ) -> "_Run":
        """A fresh run, or the one saved in `out_dir`."""
        model = GPT(preset.model)
        initialize(model, seed)
        model.to(device)
        average = WeightAverage(model, preset.train.ema_decay) if preset.train.ema_decay else None
        parts = Parts(model=model, optimizers=optimizers(model, preset.train), average=average)
        identity = {
            "preset": preset.name,
            "model": preset.model.to_dict(),
            "train": preset.train.to_dict(),
            "seed": seed,
            "data": loader.fingerprint(),
            "tokenizer_sha256": tokenizer_sha256,
        }
        place = Place(step=0, seconds=0.0, log_bytes=0)
        if resume and (out_dir / STATE).exists():
            place = load_state(out_dir / STATE, parts, identity)
        out_dir.mkdir(parents=True, exist_ok=True)
        log = TrainLog(out_dir / LOG, keep_bytes=place.log_bytes)
        if not place.step:
            log.opening(
                identity,
                source_sha256=_source_sha256(),
                seed=seed,
                tokens=loader.tokens,
                parameters=sum(weight.numel() for weight in model.parameters()),
            )
        return cls(
            preset=preset,
            loader=loader,
            out_dir=out_dir,
            identity=identity,
            device=device,
            parts=parts,
            log=log,
            step=place.step,
            seconds=place.seconds,
        )

    @property
    def config(self) -> TrainConfig:
        return self.preset.train

    @property
    def out_of_time(self) -> bool:
        return bool(self.config.max_seconds) and self.seconds >= self.config.max_seconds

    def steps(self, evaluate: Evaluate, progress: Progress | None) -> None:
        """Train to the end, with log lines, validations and saved states on the way."""
        config = self.config
        with _signals() as interrupted:
            while self.step < config.steps and not self.out_of_time:
                loss = self.advance()
                last = self.step == config.steps or self.out_of_time
                if last or self.step % config.log_every == 0:
                    self.log.trained(self.step, config.steps, loss, self.seconds)
                if config.val_every and self.step % config.val_every == 0 and not last:
                    self.validate(evaluate)
                if progress:
                    progress(self.step, f"loss {loss:.3f}, {_minutes(self.seconds_left())} left")
                stopping = interrupted.is_set()  # read once: a signal between saving and leaving must not be lost
                if last or stopping or self.step % config.save_every == 0:
                    self.save()
                if stopping:
                    raise KeyboardInterrupt

    def advance(self) -> float:
        """One step; returns its loss.  A loss or gradient that is not finite changes nothing and raises."""
        started = time.perf_counter()
        muon, adam = self.parts.optimizers
        done = schedule.progress(self.step, self.config.steps, self.seconds, self.config.max_seconds)
        multiplier = schedule.lr_multiplier(done, warmdown=self.config.warmdown, min_lr=self.config.min_lr)
        for group in muon.param_groups + adam.param_groups:
            group["lr"] = group["peak_lr"] * multiplier
        for group in muon.param_groups:
            group["momentum"] = schedule.momentum(done, limits=self.config.momentum, warmup=self.config.momentum_warmup)
        loss = self.gradients()
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.parts.model.parameters(), self.config.grad_clip).item()
        if not math.isfinite(loss) or not math.isfinite(gradient_norm):
            raise PgolfError(
                f"the loss of step {self.step + 1} is {loss}, its gradient norm {gradient_norm}",
                where=str(self.out_dir),
                hint="lower the learning rates; the last saved state is kept",
            )
        muon.step()
        adam.step()
        if self.parts.average:
            self.parts.average.update(self.parts.model)
        self.step += 1
        self.seconds += time.perf_counter() - started
        return loss

    def gradients(self) -> float:
        """Sum the gradients of the step's micro-batches; returns the mean loss."""
        model, size = self.parts.model, self.config.micro_batch
        model.train()
        model.zero_grad(set_to_none=True)
        inputs, targets = (tensor.to(self.device) for tensor in self.loader.batch(self.step))
        total = torch.zeros((), device=self.device)
        # On most CPUs bfloat16 is emulated: half the speed of float32.
        autocast = torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()
        for part_inputs, part_targets in zip(inputs.split(size), targets.split(size), strict=True):
            with autocast:
                loss = model(part_inputs, part_targets) * (len(part_inputs) / len(inputs))
            loss.backward()
            total += loss.detach()
        return total.item()

    def validate(self, evaluate: Evaluate) -> tuple[float, float]:
        """(val_loss, val_bpb) of the weights that would be exported now."""
        started = time.perf_counter()
        model = self.parts.model.eval()
        with self.exported():
            loss, bpb = evaluate(model)
        self.log.validated(self.step, self.config.steps, loss, bpb, self.seconds)
        self.phases["val"] += time.perf_counter() - started
        return loss, bpb

    def exported(self) -> AbstractContextManager[None]:
        """The model with the weights to export: the average if there is one."""
        return self.parts.average.applied(self.parts.model) if self.parts.average else nullcontext()

    def save(self) -> None:
        """Write the state from which `resume` goes on."""
        started = time.perf_counter()
        place = Place(step=self.step, seconds=self.seconds, log_bytes=self.log.bytes)
        save_state(self.out_dir / STATE, self.parts, place, self.identity)
        self.phases["save"] += time.perf_counter() - started

    def finish(self, evaluate: Evaluate) -> TrainResult:
        """Validate, write the checkpoint, and close the log with sizes and times."""
        if self.step < self.config.steps:
            self.log.stopped_early(self.step, self.config.steps, self.seconds)
        val_loss, val_bpb = self.validate(evaluate)
        path, tokens = self.out_dir / CHECKPOINT, self.step * self.config.batch_tokens
        metadata = {
            "config": self.preset.model.to_dict(),
            "preset": self.preset.name,
            "seed": self.identity["seed"],
            "steps": self.step,
            "tokens": tokens,
            "train_seconds": round(self.seconds, 3),
            "tokenizer_sha256": self.identity["tokenizer_sha256"],
        }
        with self.exported():
            write_checkpoint(
                path,
                {name: weight.detach().float().cpu().numpy() for name, weight in self.parts.model.named_parameters()},
                metadata,
            )
        self.log.line(f"Serialized model: {path.stat().st_size} bytes")
        self.log.line(
            f"phase_times train:{self.seconds * 1000:.0f}ms "
            + " ".join(f"{name}:{seconds * 1000:.0f}ms" for name, seconds in self.phases.items())
        )
        return TrainResult(
            checkpoint=path, steps=self.step, tokens=tokens, seconds=self.seconds, val_loss=val_loss, val_bpb=val_bpb
        )

    def seconds_left(self) -> float:
        """Expected training time to the end, at the mean speed so far."""
        by_steps = self.seconds / self.step * (self.config.steps - self.step)
        cap = self.config.max_seconds
        return min(by_steps, max(cap - self.seconds, 0.0)) if cap else by_steps


def _check_folder(out_dir: Path, resume: bool) -> None:
    if out_dir.exists() and not out_dir.is_dir():
        raise UsageError("is a file, a run needs a folder", where=str(out_dir), hint="choose another name")
    finished, saved = ((out_dir / name).exists() for name in (CHECKPOINT, STATE))
    if resume and finished and not saved:
        raise UsageError("holds a finished run without its state", where=str(out_dir), hint="choose another folder")
    if resume or not (finished or saved or (out_dir / LOG).exists()):
        return
    raise UsageError(
        f"holds a {'finished' if finished else 'started'} run",
        where=str(out_dir),
        hint="choose another folder" if finished else "go on with --resume, or choose another folder",
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UsageError(f"there is no device `{name}`", hint="devices: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise EnvironmentLacks("no CUDA device is available to torch", hint="train with --device cpu")
    return torch.device(name)


def _source_sha256() -> str:
    """Over the names and contents of this package's modules."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that no step is torn apart; a second signal acts at once."""
    event, before = threading.Event(), {}

    def restore(*_: object) -> None:
        event.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
        before.update({number: signal.signal(number, restore) for number in (signal.SIGINT, signal.SIGTERM)})
    try:
        yield event
    finally:
        restore()


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
