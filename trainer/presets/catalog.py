"""Named model-and-training settings: everything that decides a run except its data and its seed."""

from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any

from codec.errors import UsageError
from trainer.model.config import GPTConfig

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


_CPU_MODEL = GPTConfig(
    vocab_size=1024,
    seq_len=256,
    layers=4,
    dim=128,
    heads=4,
    kv_heads=2,
    mlp_hidden=384,
    bigram_buckets=4096,
    bigram_dim=64,
    smear="vector",
    bigram_gain_init=8**-0.5,
    # Chosen by short runs on web text, one switch at a time; of the seeds' other switches partial RoPE, layer-norm
    # scale, a larger query gain and the BOS mask of the smear made these small models worse.
    activation="leaky2",
    xsa_layers=4,
    value_residual=True,
    value_embed_dim=64,
    value_embed_layers=2,
    attn_gate=True,
    gated_skips=True,
)
_CPU_RUN = TrainConfig(
    # Two sequences per pass keep every buffer under 2 MB, which the allocator reuses without page faults.
    steps=800,
    batch_tokens=2048,
    seq_len=256,
    micro_batch=2,
    matrix_lr=0.04,
    embed_lr=0.03,
    scalar_lr=0.02,
    matrix_decay=0.02,
    embed_decay=0.02,
    scalar_decay=0.02,
    momentum=(0.85, 0.95),
    momentum_steps=240,
    warmdown=0.5,
    grad_clip=1.0,
)

_H100_MODEL = GPTConfig(
    vocab_size=1024,
    seq_len=2048,
    layers=11,
    dim=512,
    heads=8,
    kv_heads=4,
    mlp_hidden=1536,
)
_H100_RUN = TrainConfig(
    steps=20_000,
    batch_tokens=786_432,
    seq_len=2048,
    micro_batch=48,
    matrix_lr=0.025,
    embed_lr=0.035,
    scalar_lr=0.025,
    matrix_decay=0.04,
    embed_decay=0.04,
    scalar_decay=0.04,
    momentum=(0.92, 0.99),
    momentum_steps=1500,
    warmdown_steps=3000,
    grad_clip=0.3,
    loader="sequential",
    warmup_steps=20,
    compile=True,
    max_seconds=600.0,
    val_every=1000,
    save_every=500,
    log_every=100,
)

_PRESETS = (
    Preset(
        name="cpu-demo",
        description="1 M weights, minutes on two CPU cores",
        model=_CPU_MODEL,
        train=_CPU_RUN,
    ),
    Preset(
        name="cpu-bench",
        description="1.8 M weights, about half an hour on a CPU core; the project's benchmark model",
        model=replace(_CPU_MODEL, dim=192, mlp_hidden=576),
        train=replace(
            _CPU_RUN,
            steps=2200,
            batch_tokens=4096,
            momentum_steps=660,
            warmdown=0.6,
            ema_decay=0.995,
            ema_from=0.5,
        ),
    ),
    Preset(
        name="baseline",
        description="the challenge's naive baseline: 17.1 M weights, 8 x H100 for 600 s",
        model=replace(_H100_MODEL, seq_len=1024, layers=9, mlp_hidden=1024),
        train=replace(
            _H100_RUN,
            batch_tokens=524_288,
            seq_len=1024,
            micro_batch=64,
            matrix_lr=0.04,
            embed_lr=0.05,
            scalar_lr=0.04,
            matrix_decay=0.0,
            embed_decay=0.0,
            scalar_decay=0.0,
            momentum=(0.85, 0.95),
            momentum_steps=500,
            warmdown_steps=1200,
            grad_clip=0.0,
        ),
        fixed_vocab=True,
    ),
    Preset(
        name="pr162",
        description="pull request 162: 22.4 M weights, 8 x H100 for 600 s",
        model=replace(
            _H100_MODEL, layers=9, bigram_buckets=4096, bigram_dim=128, smear="vector", bigram_gain_init=18**-0.5
        ),
        train=replace(
            _H100_RUN,
            matrix_lr=0.02,
            embed_lr=0.03,
            scalar_lr=0.02,
            embed_decay=0.01,
            scalar_decay=0.01,
            swa_every=50,
            val_every=500,
        ),
        fixed_vocab=True,
    ),
    Preset(
        name="pr339",
        description="pull request 339: 27.1 M weights, 8 x H100 for 600 s (its log is of 2048 bigram buckets)",
        model=replace(
            _H100_MODEL,
            bigram_buckets=4096,
            bigram_dim=128,
            smear="vector",
            backout=True,
            rope_train_len=1024,
            bigram_gain_init=22**-0.5,
        ),
        train=replace(_H100_RUN, steps=9000, swa_every=200),
        fixed_vocab=True,
    ),
    Preset(
        name="pr1176",
        description="pull request 1176: 27.0 M weights, 8 x H100 for 600 s",
        model=replace(
            _H100_MODEL,
            activation="leaky2",
            bigram_buckets=2816,
            bigram_dim=112,
            smear="vector",
            rope_dims=16,
            rope_train_len=1024,
            xsa_layers=11,
            ln_scale=True,
            value_embed_dim=128,
            value_embed_layers=2,
            qk_gain_init=4.0,
        ),
        train=replace(
            _H100_RUN, warmdown_steps=3500, ema_decay=0.997, muon_projections=False, loader="coprime", val_every=4000
        ),
        fixed_vocab=True,
    ),
    Preset(
        name="pr1716",
        description="pull request 1716: 36.5 M weights, 8 x H100 for 600 s; its bigram table is never trained",
        model=replace(
            _H100_MODEL,
            vocab_size=8192,
            mlp_hidden=2048,
            activation="leaky2",
            bigram_buckets=16_384,
            bigram_dim=32,
            smear="gated",
            rope_dims=16,
            rope_train_len=2048,
            xsa_layers=11,
            ln_scale=True,
            attn_gate=True,
            parallel_layers=4,
            gated_skips=True,
            loops=2,
            loop_first=3,
            loop_last=5,
            logit_temperature=True,
            qk_gain_init=5.0,
        ),
        train=replace(
            _H100_RUN,
            matrix_lr=0.022,
            embed_lr=0.03,
            scalar_lr=0.02,
            matrix_decay=0.095,
            embed_decay=0.085,
            scalar_decay=0.02,
            warmdown_steps=0,
            warmdown=0.72,
            row_norm=True,
            loader="shuffled",
            train_bigram=False,
            loop_from=0.35,
            ema_decay=0.9965,
            reserve_seconds=12.0,
            val_every=4000,
        ),
        fixed_vocab=True,
    ),
    Preset(
        name="tiny",
        description="20 thousand weights, seconds; for trying out the tools",
        model=replace(
            _CPU_MODEL,
            vocab_size=256,
            seq_len=32,
            layers=2,
            dim=32,
            heads=2,
            kv_heads=1,
            mlp_hidden=64,
            bigram_buckets=64,
            bigram_dim=16,
            bigram_gain_init=0.5,
            xsa_layers=2,
            value_embed_dim=16,
        ),
        train=replace(
            _CPU_RUN,
            steps=40,
            batch_tokens=256,
            seq_len=32,
            micro_batch=8,
            momentum_steps=12,
            ema_decay=0.9,
            save_every=10,
        ),
    ),
)

PRESETS = {preset.name: preset for preset in _PRESETS}
PRESETS["pr1716-bigram"] = replace(
    PRESETS["pr1716"],
    name="pr1716-bigram",
    description="pull request 1716 with a bigram table that is trained, which the original forgot",
    train=replace(PRESETS["pr1716"].train, train_bigram=True),
)


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
