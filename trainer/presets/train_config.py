"""How a model is trained: every setting of a run except its data and its seed."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from codec.errors import UsageError

LOADERS = ("shuffled", "sequential", "coprime")
NEWTON_SCHULZ = ("jordan", "polar")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a model is trained.  0 and False switch an optional rule off; a part of the run is a number in 0..1.

    batch_tokens: tokens per step of all ranks together; micro_batch: sequences per forward pass and rank (gradients
    are accumulated).  loader: "shuffled", "sequential" or "coprime", see trainer.data.loader.
    *_lr, *_decay: peak learning rate and decoupled weight decay of matrices (Muon), embeddings and all others.
    momentum: Muon's, rising linearly over the first momentum_steps.  row_norm: give each row of Muon's update unit
    length first.  newton_schulz: "jordan" or "polar" coefficients.  muon_projections: projections outside the blocks
    (bigram, value embedding, smear gate) use Muon, otherwise AdamW at scalar_lr.  train_bigram: False leaves the
    bigram table out of every optimizer, which is what pull request 1716 did.
    warmdown: last part of the run in which the learning rates fall linearly to min_lr of their peak; or, as a number
    of steps at the mean step time so far, warmdown_steps.  loop_from: part of the run after which layers loop.
    grad_clip: largest global gradient norm.
    ema_decay: moving average, begun at part ema_from of the run.  swa_every: mean of the weights every so many steps
    while the learning rate is below swa_below of its peak.  Without either the live weights are exported.
    qat_below: train through the rounding of recipe qat_recipe while the learning rate is below that part of its peak.
    warmup_steps: steps on the first batch whose every trace is removed, so that compiling costs no training time.
    max_seconds: 0 = no wall-clock cap.  reserve_seconds: of them, kept for calibration after the last step.
    val_every, save_every, log_every: steps; val_every 0 = only at the end.
    Raises: UsageError when the batch is not a whole number of micro-batches, or rules contradict each other.
    """

    steps: int
    batch_tokens: int
    seq_len: int
    micro_batch: int
    matrix_lr: float
    embed_lr: float
    scalar_lr: float
    matrix_decay: float
    embed_decay: float
    scalar_decay: float
    momentum: tuple[float, float]
    momentum_steps: int
    warmdown: float = 0.0
    warmdown_steps: int = 0
    min_lr: float = 0.0
    grad_clip: float
    loader: str = "shuffled"
    row_norm: bool = False
    newton_schulz: str = "jordan"
    muon_projections: bool = True
    train_bigram: bool = True
    loop_from: float = 0.0
    ema_decay: float = 0.0
    ema_from: float = 0.0
    swa_every: int = 0
    swa_below: float = 0.5
    qat_below: float = 0.0
    qat_recipe: str = ""
    warmup_steps: int = 0
    compile: bool = False
    max_seconds: float = 0.0
    reserve_seconds: float = 0.0
    val_every: int = 0
    save_every: int = 100
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "seq_len", "micro_batch", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.batch_tokens % (self.seq_len * self.micro_batch):
            raise UsageError(
                f"a batch of {self.batch_tokens} tokens is not a multiple of {self.micro_batch} sequences "
                f"of {self.seq_len} tokens",
                hint="change batch_tokens, seq_len or micro_batch",
            )
        for name, allowed in (("loader", LOADERS), ("newton_schulz", NEWTON_SCHULZ)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is `{getattr(self, name)}`, it must be one of {', '.join(allowed)}")
        for one, other in (("warmdown", "warmdown_steps"), ("ema_decay", "swa_every")):
            if getattr(self, one) and getattr(self, other):
                raise UsageError(f"{one} and {other} exclude each other, set one of them")
        if 0 < self.max_seconds <= self.reserve_seconds:
            raise UsageError(
                f"reserve_seconds is {self.reserve_seconds:g}, "
                f"of max_seconds {self.max_seconds:g} nothing is left to train"
            )
        if bool(self.qat_below) != bool(self.qat_recipe):
            raise UsageError("qat_below and qat_recipe go together", hint="set both or none")

    @property
    def sequences(self) -> int:
        """Sequences per step."""
        return self.batch_tokens // self.seq_len

    def shortened(self, steps: int) -> "TrainConfig":
        """The same run in another number of steps: whatever is counted in steps shrinks or grows with it."""
        scale = steps / self.steps
        return replace(
            self,
            steps=steps,
            momentum_steps=round(self.momentum_steps * scale),
            warmdown_steps=round(self.warmdown_steps * scale),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values by field name."""
        return {**asdict(self), "momentum": list(self.momentum)}
