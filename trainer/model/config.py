"""What a model is made of, as plain JSON; it travels inside submissions with the model."""

from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, get_type_hints

from codec.errors import UsageError

GATE_CHANNELS = 12  # channels of the stream that a gate reads
CHOICES = {
    "activation": ("relu2", "leaky2"),
    "bigram_hash": ("xor", "xor3", "poly31"),
    "smear": ("", "vector", "gated"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    """Sizes and switches of one GPT; every value is plain JSON.

    Counts of layers mean the last ones.  0, "" and False switch a feature off.
    value_embed_layers: a count, or the layers themselves, ascending, where they are not the last.
    bigram_hash: "xor" of two products (all seeds), "xor3" adds a trigram from the same table, "poly31" is the formula
    of pull request 162's README, which its code does not use.  smear: blend in the position before, by a gate per
    channel ("vector") or one read off the stream ("gated"); smear_bos_mask: not across documents.
    rope_dims: rotated part of a head, 0 = all.  rope_train_len: longer inputs stretch the rotary base; 0 = never.
    xsa_layers: attention without the part along a position's own value.  ln_scale: inputs of layer i shrink by
    1/sqrt(i + 1).  parallel_layers: attention and MLP read the same input.  loops: further passes over layers
    loop_first..loop_last.  backout: subtract the middle layer's output at the end.
    qk_gain_init, bigram_gain_init, backout_init, embed_std: starting values only.
    Raises: UsageError when the sizes do not fit together.
    """

    vocab_size: int
    seq_len: int
    layers: int
    dim: int
    heads: int
    kv_heads: int
    mlp_hidden: int
    activation: str = "relu2"
    bigram_buckets: int = 0
    bigram_dim: int = 128
    bigram_hash: str = "xor"
    smear: str = ""
    smear_bos_mask: bool = False
    rope_base: float = 10_000.0
    rope_dims: int = 0
    rope_train_len: int = 0
    xsa_layers: int = 0
    ln_scale: bool = False
    value_residual: bool = False
    value_embed_dim: int = 0
    value_embed_layers: int | tuple[int, ...] = 0
    attn_gate: bool = False
    parallel_layers: int = 0
    gated_skips: bool = False
    loops: int = 0
    loop_first: int = 0
    loop_last: int = 0
    backout: bool = False
    softcap: float = 30.0
    logit_temperature: bool = False
    qk_gain_init: float = 1.5
    bigram_gain_init: float = 1.0
    backout_init: float = 0.2
    embed_std: float = 0.005

    def __post_init__(self) -> None:
        for name in ("vocab_size", "seq_len", "dim", "heads", "kv_heads", "mlp_hidden", "bigram_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"the model's {name} is {getattr(self, name)}, it must be at least 1")
        if self.layers < 2:
            raise UsageError(f"the model has {self.layers} layers, skip connections need at least 2")
        width = self.dim // self.heads
        if self.dim % self.heads or self.heads % self.kv_heads or width % 2:
            raise UsageError(
                f"{self.heads} heads and {self.kv_heads} kv_heads do not fit dim {self.dim}",
                hint="heads divide dim into even parts, kv_heads divide heads",
            )
        if self.rope_dims % 2 or not 0 <= self.rope_dims <= width:
            raise UsageError(
                f"rope_dims is {self.rope_dims}, it must be even and at most {width}", hint="0 rotates whole heads"
            )
        if self.bigram_buckets < 0 or self.bigram_buckets == 1:
            raise UsageError(f"bigram_buckets is {self.bigram_buckets}, it must be 0 (none) or at least 2")
        embedded, inside = self.embedded_layers, {*range(self.layers)}
        if sorted({*embedded} & inside) != [*embedded] or bool(embedded) != bool(self.value_embed_layers):
            raise UsageError(f"value_embed_layers is {self.value_embed_layers}, the model has {self.layers} layers")
        for name in ("xsa_layers", "parallel_layers"):
            if not 0 <= getattr(self, name) <= self.layers:
                raise UsageError(f"{name} is {getattr(self, name)}, the model has {self.layers} layers")
        if self.loops and not 0 <= self.loop_first <= self.loop_last < self.layers:
            raise UsageError(f"layers {self.loop_first} to {self.loop_last} of {self.layers} cannot be looped")
        if bool(self.value_embed_dim) != bool(self.value_embed_layers):
            raise UsageError("value_embed_dim and value_embed_layers go together: both 0 or both positive")
        if (self.smear == "gated" or self.attn_gate) and self.dim < GATE_CHANNELS:
            raise UsageError(f"gates read {GATE_CHANNELS} channels, dim is {self.dim}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is `{getattr(self, name)}`, it must be one of {allowed}")

    @property
    def embedded_layers(self) -> tuple[int, ...]:
        """The layers whose values get the value embedding."""
        layers = self.value_embed_layers
        return layers if isinstance(layers, tuple) else tuple(self.layers - 1 - i for i in range(layers))[::-1]

    def order(self, looping: bool) -> list[int]:
        """Layers in the order they run; the first half pushes, the second half pops."""
        middle = range(self.loop_first, self.loop_last + 1)
        if not (looping and self.loops):
            return list(range(self.layers))
        return [*range(self.loop_first), *(1 + self.loops) * [*middle], *range(self.loop_last + 1, self.layers)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name, as stored in checkpoints and artifacts."""
        return {name: [*value] if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GPTConfig":
        """The inverse of `to_dict`.

        Raises: UsageError for an unknown key (with the nearest known one), a missing key or a value of a wrong type.
        """
        known = get_type_hints(cls)
        for name, value in values.items():
            if name not in known:
                near = get_close_matches(name, known, n=1)
                raise UsageError(
                    f"the model config has an unknown key `{name}`",
                    hint=f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}",
                )
            wanted = known[name]
            if name == "value_embed_layers":
                if type(value) is list and all(type(each) is int for each in value):
                    values = {**values, name: tuple(value)}
                    continue
                wanted = int
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise UsageError(f"the model config's `{name}` is {value!r}, it must be of type {wanted.__name__}")
        try:
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"the model config is incomplete ({error})") from None
