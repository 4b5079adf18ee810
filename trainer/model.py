"""The reference GPT of the toolkit; it travels inside submissions, so it needs torch and codec.errors only.

Legend of shape suffixes: B batch, T tokens, D model width, H query heads, J key/value heads, K width of a head,
V vocabulary, S stream of two (resid_mix).

One residual stream: embedding (+ hashed bigram), RMS norm, smear, then blocks that mix the first stream back in.  The
first half of the blocks pushes its outputs, the second half pops them (U-Net).  No linear layer has a bias, no norm
has a gain.  The state-dict names and shapes are those of the pull request 162 checkpoint.
"""

from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.errors import UsageError

EPS = 1.1920929e-07  # float32's; spelt out because torch picks another one per dtype, and embeddings start at std 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    """Sizes and switches of one GPT; every value is plain JSON.

    bigram_buckets 0: no hashed bigram table.  smear: blend each position with the one before.
    qk_gain_init, embed_std: starting values only.
    Raises: UsageError when the sizes do not fit together.
    """

    vocab_size: int
    seq_len: int
    layers: int
    dim: int
    heads: int
    kv_heads: int
    mlp_hidden: int
    bigram_buckets: int = 0
    bigram_dim: int = 128
    smear: bool = False
    rope_base: float = 10_000.0
    softcap: float = 30.0
    qk_gain_init: float = 1.5
    embed_std: float = 0.005

    def __post_init__(self) -> None:
        for name in ("vocab_size", "seq_len", "dim", "heads", "kv_heads", "mlp_hidden", "bigram_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"the model's {name} is {getattr(self, name)}, it must be at least 1")
        if self.layers < 2:
            raise UsageError(f"the model has {self.layers} layers, skip connections need at least 2")
        if self.dim % self.heads or self.heads % self.kv_heads or self.dim // self.heads % 2:
            raise UsageError(
                f"{self.heads} heads and {self.kv_heads} kv_heads do not fit dim {self.dim}",
                hint="heads divide dim into even parts, kv_heads divide heads",
            )
        if self.bigram_buckets < 0 or self.bigram_buckets == 1:
            raise UsageError(f"bigram_buckets is {self.bigram_buckets}, it must be 0 (none) or at least 2")

    def to_dict(self) -> dict[str, int | float | bool]:
        """Plain values by field name, as stored in checkpoints and artifacts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, int | float | bool]) -> "GPTConfig":
        """The inverse of `to_dict`.

        Raises: UsageError for an unknown key (with the nearest known one), a missing key or a value of a wrong type.
        """
        known = {field.name: field for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                near = get_close_matches(name, known, n=1)
                raise UsageError(
                    f"the model config has an unknown key `{name}`",
                    hint=f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}",
                )
            wanted = known[name].type
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise UsageError(f"the model config's `{name}` is {value!r}, it must be of type {wanted.__name__}")
        try:
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"the model config is incomplete ({error})") from None


def norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without a gain."""
    return F.rms_norm(x, (x.shape[-1],), eps=EPS)


def rotary_tables(tokens: int, width: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """(cos, sin), each float32 (T, 1, K/2): in bfloat16 positions above 256 would fall together."""
    frequencies = base ** -(torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angles = torch.outer(torch.arange(tokens, device=device, dtype=torch.float32), frequencies)[:, None]
    return angles.cos(), angles.sin()


def rotate(x_BTHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotation by minus the angle; the dtype of `x` is kept."""
    a, b = x_BTHK.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1).type_as(x_BTHK)


class Bigram(nn.Module):
    """A learned vector for each hashed pair (previous token, this token)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.bigram_buckets, config.bigram_dim)
        self.proj = nn.Linear(config.bigram_dim, config.dim, bias=False)
        self.scale = nn.Parameter(torch.tensor(0.05))

    def slots(self, ids_BT: Tensor) -> Tensor:
        """int32 (B, T): a hash modulo N-1; position 0 has no pair and owns slot N-1.

        Source: the code of pull request 162 (its README states another formula).
        """
        ids, last = ids_BT.int(), self.embed.num_embeddings - 1
        pairs = torch.bitwise_xor(36313 * ids[:, 1:], 27191 * ids[:, :-1]) % last
        return F.pad(pairs, (1, 0), value=last)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.scale * self.proj(self.embed(self.slots(ids_BT)))


class Smear(nn.Module):
    """Blend each position with the one before it, by one learned gate per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x_BTD: Tensor) -> Tensor:
        before = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
        return torch.lerp(x_BTD, before, torch.sigmoid(self.gate).to(x_BTD.dtype))


class Attention(nn.Module):
    """Causal attention with grouped keys and values, normalised and rotated queries and keys."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = config.heads, config.kv_heads, config.dim // config.heads
        kv_dim = self.kv_heads * self.width
        self.c_q = nn.Linear(config.dim, config.dim, bias=False)
        self.c_k = nn.Linear(config.dim, kv_dim, bias=False)
        self.c_v = nn.Linear(config.dim, kv_dim, bias=False)
        self.proj = nn.Linear(config.dim, config.dim, bias=False)
        self.q_gain = nn.Parameter(torch.full((config.heads,), config.qk_gain_init))

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q_BTHK = self.c_q(x_BTD).view(B, T, self.heads, self.width)
        k_BTJK = self.c_k(x_BTD).view(B, T, self.kv_heads, self.width)
        v_BTJK = self.c_v(x_BTD).view(B, T, self.kv_heads, self.width)
        # Under CUDA autocast the norm answers in float32; attention wants one dtype.
        q_BTHK = (rotate(norm(q_BTHK), cos, sin) * self.q_gain[:, None]).type_as(v_BTJK)
        k_BTJK = rotate(norm(k_BTJK), cos, sin).type_as(v_BTJK)
        y_BHTK = F.scaled_dot_product_attention(
            q_BTHK.transpose(1, 2),
            k_BTJK.transpose(1, 2),
            v_BTJK.transpose(1, 2),
            is_causal=True,
            enable_gqa=self.heads != self.kv_heads,
        )
        return self.proj(y_BHTK.transpose(1, 2).reshape(B, T, D))


class MLP(nn.Module):
    """fc, relu squared, proj."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.dim, config.mlp_hidden, bias=False)
        self.proj = nn.Linear(config.mlp_hidden, config.dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.proj(F.relu(self.fc(x_BTD)).square())


class Block(nn.Module):
    """Mix the first stream back in, then attention and MLP, each with a learned scale per channel."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(config), MLP(config)
        self.attn_scale = nn.Parameter(torch.ones(config.dim))
        self.mlp_scale = nn.Parameter(torch.ones(config.dim))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(config.dim), torch.zeros(config.dim))))

    def forward(self, x_BTD: Tensor, first_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        mix_SD = self.resid_mix.to(x_BTD.dtype)
        x_BTD = mix_SD[0] * x_BTD + mix_SD[1] * first_BTD
        x_BTD = x_BTD + self.attn_scale.to(x_BTD.dtype) * self.attn(norm(x_BTD), cos, sin)
        return x_BTD + self.mlp_scale.to(x_BTD.dtype) * self.mlp(norm(x_BTD))


class GPT(nn.Module):
    """Token ids -> next-token logits; a position sees itself and what came before."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.dim)
        self.bigram = Bigram(config) if config.bigram_buckets else None
        self.smear = Smear(config.dim) if config.smear else None
        self.skip_weights = nn.Parameter(torch.ones(config.layers // 2, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """ids int64 (B, T) -> the normalised last stream (B, T, D)."""
        x_BTD = self.tok_emb(ids_BT)
        if self.bigram is not None:
            x_BTD = x_BTD + self.bigram(ids_BT)
        x_BTD = norm(x_BTD)
        if self.smear is not None:
            x_BTD = self.smear(x_BTD)
        first_BTD, pushed = x_BTD, []
        width = self.config.dim // self.config.heads
        cos, sin = rotary_tables(ids_BT.shape[1], width, self.config.rope_base, ids_BT.device)
        for index, block in enumerate(self.blocks):
            popping = index - len(self.blocks) // 2
            if popping >= 0 and pushed:
                x_BTD = x_BTD + self.skip_weights[popping].to(x_BTD.dtype) * pushed.pop()
            x_BTD = block(x_BTD, first_BTD, cos, sin)
            if popping < 0:
                pushed.append(x_BTD)
        return norm(x_BTD)

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """(B, T, D) -> logits float32 (B, T, V), bent to stay within +-softcap; the embedding is the output matrix."""
        # Dividing D values instead of V logits saves a pass over the largest tensor: 30 % of this function's time.
        scaled_BTV = F.linear(hidden_BTD / self.config.softcap, self.tok_emb.weight)
        return self.config.softcap * torch.tanh(scaled_BTV.float())

    def logits(self, ids_BT: Tensor) -> Tensor:
        """ids int64 (B, T) -> float32 (B, T, V)."""
        return self.head(self.hidden(ids_BT))

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy in nats per token, float32 scalar."""
        return F.cross_entropy(self.logits(ids_BT).flatten(0, 1), targets_BT.flatten())
