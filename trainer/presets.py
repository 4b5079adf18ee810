"""Named model-and-training settings: everything that decides a run except its data and its seed."""

from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any

from codec.errors import UsageError
from trainer.model import GPTConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a model is trained.

    batch_tokens: tokens per step; micro_batch: sequences per forward pass (gradients are accumulated).
    *_lr, *_decay: peak learning rate and decoupled weight decay of the matrices (Muon), embeddings and all others.
    momentum: Muon's, rising linearly over the first momentum_warmup of the run.  warmdown: last part of the run in
    which the learning rates fall linearly to min_lr of their peak.  grad_clip: largest global gradient norm.
    ema_decay: 0 = export the live weights.  max_seconds: 0 = no wall-clock cap.
    val_every, save_every, log_every: steps; val_every 0 = only at the end.
    Raises: UsageError when the batch is not a whole number of micro-batches.
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
    momentum_warmup: float
    warmdown: float
    grad_clip: float
    min_lr: float = 0.0
    ema_decay: float = 0.0
    max_seconds: float = 0.0
    val_every: int = 0
    save_every: int = 100
    log_every: int = 10

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps is {self.steps}, it must be at least 1")
        if self.batch_tokens % (self.seq_len * self.micro_batch):
            raise UsageError(
                f"a batch of {self.batch_tokens} tokens is not a multiple of {self.micro_batch} sequences "
                f"of {self.seq_len} tokens",
                hint="change batch_tokens, seq_len or micro_batch",
            )

    @property
    def sequences(self) -> int:
        """Sequences per step."""
        return self.batch_tokens // self.seq_len

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values by field name."""
        return {**asdict(self), "momentum": list(self.momentum)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A name for one GPTConfig and one TrainConfig.

    fixed_vocab: the vocabulary size is part of the recipe; otherwise it follows the tokenizer.
    """

    name: str
    description: str
    model: GPTConfig
    train: TrainConfig
    fixed_vocab: bool = False


_CPU_RUN = TrainConfig(
    # Two sequences per pass keep every buffer under 2 MB, which the allocator reuses without page faults.
    steps=800,
    batch_tokens=2048,
    seq_len=256,
    micro_batch=2,
    matrix_lr=0.03,
    embed_lr=0.03,
    scalar_lr=0.02,
    matrix_decay=0.02,
    embed_decay=0.02,
    scalar_decay=0.02,
    momentum=(0.85, 0.95),
    momentum_warmup=0.3,
    warmdown=0.5,
    grad_clip=1.0,
)

_PRESETS = (
    Preset(
        name="cpu-demo",
        description="1 M weights, minutes on two CPU cores",
        model=GPTConfig(
            vocab_size=1024,
            seq_len=256,
            layers=4,
            dim=128,
            heads=4,
            kv_heads=2,
            mlp_hidden=384,
            bigram_buckets=4096,
            bigram_dim=64,
            smear=True,
        ),
        train=_CPU_RUN,
    ),
    Preset(
        name="pr162",
        description="pull request 162: 22.4 M weights, 8 x H100 for 600 s (its snapshot average is an EMA here)",
        model=GPTConfig(
            vocab_size=1024,
            seq_len=2048,
            layers=9,
            dim=512,
            heads=8,
            kv_heads=4,
            mlp_hidden=1536,
            bigram_buckets=4096,
            bigram_dim=128,
            smear=True,
        ),
        fixed_vocab=True,
        # Its warm-up of 1500 and warmdown of 3000 steps, as parts of the 7379 steps that its log reached in 600 s.
        train=TrainConfig(
            steps=20_000,
            batch_tokens=786_432,
            seq_len=2048,
            micro_batch=48,
            matrix_lr=0.02,
            embed_lr=0.03,
            scalar_lr=0.02,
            matrix_decay=0.04,
            embed_decay=0.01,
            scalar_decay=0.01,
            momentum=(0.92, 0.99),
            momentum_warmup=0.2033,
            warmdown=0.4066,
            grad_clip=0.3,
            ema_decay=0.997,
            max_seconds=600.0,
            val_every=500,
            save_every=500,
            log_every=100,
        ),
    ),
    Preset(
        name="tiny",
        description="20 thousand weights, seconds; for trying out the tools",
        model=GPTConfig(
            vocab_size=256,
            seq_len=32,
            layers=2,
            dim=32,
            heads=2,
            kv_heads=1,
            mlp_hidden=64,
            bigram_buckets=64,
            bigram_dim=16,
            smear=True,
        ),
        train=replace(_CPU_RUN, steps=40, batch_tokens=256, seq_len=32, micro_batch=8, ema_decay=0.9, save_every=10),
    ),
)

PRESETS = {preset.name: preset for preset in _PRESETS}


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises: UsageError naming the nearest preset and all there are.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = get_close_matches(name, PRESETS, n=1)
    raise UsageError(
        f"there is no preset `{name}`",
        hint=(f"did you mean `{near[0]}`? " if near else "") + f"presets: {', '.join(PRESETS)}",
    )
