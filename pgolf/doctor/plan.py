"""How large the checks of a card are; on a CPU the same checks with small models and few steps."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.presets.preset import Preset

CARDS = 8  # of the challenge's machine: one card's share of a step is an eighth


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """device: "cuda" or "cpu".  dry: models of a test's size, so that no figure tells of a card.

    steps: of each preset, with one card's share of the tokens; whole_steps: with all of them.
    attention: sequences, tokens, heads, key/value heads and width of a head.  sequences: of the precision check.
    targets: for each scorer, at most.  message_bytes: of an all-reduce.
    """

    device: str
    dry: bool
    compile: bool
    steps: int
    whole_steps: int
    attention: tuple[int, int, int, int, int]
    sequences: int
    targets: int
    message_bytes: int

    @classmethod
    def of_card(cls) -> "Plan":
        """What fits into eight minutes of an H100: by the published step times, 200 steps of five presets take 90 s."""
        return cls(
            device="cuda",
            dry=False,
            compile=True,
            steps=200,
            whole_steps=2,
            attention=(4, 2048, 8, 4, 64),
            sequences=8,
            targets=262_144,
            message_bytes=90_000_000,  # the gradients of pr162's 22.4 M weights in float32
        )

    @classmethod
    def dry_run(cls) -> "Plan":
        """Every code path that a CPU has, in less than a minute of two cores."""
        return cls(
            device="cpu",
            dry=True,
            compile=False,  # it would take longer than everything else; `pgolf train --compile` is tested elsewhere
            steps=8,
            whole_steps=1,
            attention=(2, 64, 4, 2, 16),
            sequences=2,
            targets=256,
            message_bytes=100_000,
        )

    def preset(self, name: str) -> "Preset":
        """The preset of that name, shrunk for a dry run."""
        from trainer.presets.catalog import find_preset

        preset = find_preset(name)
        return shrunk(preset) if self.dry else preset


def shrunk(preset: "Preset") -> "Preset":
    """Every switch of the preset in a model of some hundred thousand weights; a step has 16 sequences of 32 tokens."""
    model, train = preset.model, preset.train
    layers = 6 if model.loops else 4
    small = replace(
        model,
        vocab_size=256,
        seq_len=32,
        layers=layers,
        dim=64,
        heads=4,
        kv_heads=2,
        mlp_hidden=128,
        bigram_buckets=64 if model.bigram_buckets else 0,
        bigram_dim=min(model.bigram_dim, 32),
        rope_dims=8 if model.rope_dims else 0,
        rope_train_len=32 if model.rope_train_len else 0,
        value_embed_dim=16 if model.value_embed_dim else 0,
        value_embed_layers=1 if model.value_embed_dim else 0,
        xsa_layers=min(model.xsa_layers, layers),
        parallel_layers=min(model.parallel_layers, 2),
        loop_first=2 if model.loops else 0,
        loop_last=3 if model.loops else 0,
    )
    return replace(preset, model=small, train=replace(train, batch_tokens=512, seq_len=32, micro_batch=2))
