"""Named model-and-training settings: everything that decides a run except its data and its seed."""

from dataclasses import dataclass, replace
from difflib import get_close_matches

from codec.errors import UsageError
from trainer.model.config import GPTConfig
from trainer.presets.train_config import TrainConfig


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
