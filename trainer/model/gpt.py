"""The reference GPT of the toolkit; it travels inside submissions, so it needs torch and trainer.model.config only.

Legend of shape suffixes: B batch, T tokens, D model width, H query heads, J key/value heads, G = H/J, K width of a
head, R rotated width, V vocabulary, S stream of two (resid_mix).

One residual stream: embedding (+ hashed bigram), RMS norm, smear, then blocks that mix the first stream back in.  The
first half of the executed blocks pushes its outputs, the second half pops them (U-Net).  No linear layer has a bias, no
norm has a gain.  GPTConfig spans the pull requests 162, 339, 1176 and 1716; state-dict names and shapes are theirs
(1176's banks: trainer.presets.published_layouts).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.model.config import GATE_CHANNELS, GPTConfig

EPS = 1.1920929e-07  # float32's; spelt out because torch picks another one per dtype, and embeddings start at std 0.005
BOS = 1
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Rotation = tuple[Tensor, Tensor]


def norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without a gain."""
    # CUDA autocast answers in float32, and the stream would stay in it from the first norm on.
    return F.rms_norm(x, (x.shape[-1],), eps=EPS).type_as(x)


def rotary_tables(tokens: int, config: GPTConfig, device: torch.device) -> Rotation:
    """(cos, sin), each float32 (T, 1, R/2): in bfloat16 positions above 256 would fall together.

    Source: inputs longer than rope_train_len use base * (T / rope_train_len)^(R / (R - 2)), as 339 and 1176 do.
    """
    rotated, base = config.rope_dims or config.dim // config.heads, config.rope_base
    if config.rope_train_len and tokens > config.rope_train_len and rotated > 2:
        base *= (tokens / config.rope_train_len) ** (rotated / (rotated - 2))
    frequencies = base ** -(torch.arange(0, rotated, 2, device=device, dtype=torch.float32) / rotated)
    angles = torch.outer(torch.arange(tokens, device=device, dtype=torch.float32), frequencies)[:, None]
    return angles.cos(), angles.sin()


def rotate(x_BTHK: Tensor, rotation: Rotation) -> Tensor:
    """Half-split rotation of the first R channels by minus the angle; the dtype of `x` is kept."""
    cos, sin = rotation
    half = cos.shape[-1]
    rest = x_BTHK.shape[-1] - 2 * half
    a, b, *still = x_BTHK.split((half, half, rest) if rest else half, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin, *still), dim=-1).type_as(x_BTHK)


def shift(x_BTD: Tensor) -> Tensor:
    """Each position's predecessor; zeros come first."""
    return F.pad(x_BTD[:, :-1], (0, 0, 1, 0))


def sdpa(q_BTHK: Tensor, k_BTJK: Tensor, v_BTJK: Tensor) -> Tensor:
    """Causal attention by torch, grouped heads included; -> (B, T, H, K)."""
    y_BHTK = F.scaled_dot_product_attention(
        q_BTHK.transpose(1, 2),
        k_BTJK.transpose(1, 2),
        v_BTJK.transpose(1, 2),
        is_causal=True,
        enable_gqa=q_BTHK.shape[2] != k_BTJK.shape[2],
    )
    return y_BHTK.transpose(1, 2)


class Bigram(nn.Module):
    """A learned vector for each hashed pair (previous token, this token)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.hash = config.bigram_hash
        self.embed = nn.Embedding(config.bigram_buckets, config.bigram_dim)
        self.proj = nn.Linear(config.bigram_dim, config.dim, bias=False)
        self.scale = nn.Parameter(torch.tensor(0.05))

    def slots(self, ids_BT: Tensor) -> Tensor:
        """int32 (B, T): a hash modulo N-1; position 0 has no pair and owns slot N-1.

        Source: the code of pull request 162 (its README states "poly31").
        """
        ids, last = ids_BT.int(), self.embed.num_embeddings - 1
        if self.hash == "poly31":
            pairs = (31 * ids[:, :-1] + ids[:, 1:]) % last
        else:
            pairs = torch.bitwise_xor(36313 * ids[:, 1:], 27191 * ids[:, :-1]) % last
        return F.pad(pairs, (1, 0), value=last)

    def triples(self, ids_BT: Tensor) -> Tensor:
        """int32 (B, T): the same with the token before; positions 0 and 1 own slot N-1."""
        ids, last = ids_BT.int(), self.embed.num_embeddings - 1
        pairs = torch.bitwise_xor(36313 * ids[:, 2:], 27191 * ids[:, 1:-1])
        return F.pad(torch.bitwise_xor(pairs, 51497 * ids[:, :-2]) % last, (2, 0), value=last)[:, : ids.shape[1]]

    def forward(self, ids_BT: Tensor) -> Tensor:
        found = self.embed(self.slots(ids_BT))
        if self.hash == "xor3":
            found = found + self.embed(self.triples(ids_BT))
        projected: Tensor = self.proj(found)
        return self.scale * projected


class Smear(nn.Module):
    """Blend each position with the one before it, by one learned gate per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """What is added to the stream."""
        return torch.sigmoid(self.gate).to(x_BTD.dtype) * (shift(x_BTD) - x_BTD)


class ValueEmbedding(nn.Module):
    """A small table of token vectors, projected to the width of the values; shared by the layers that use it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.value_embed_dim)
        self.proj = nn.Linear(config.value_embed_dim, config.dim // config.heads * config.kv_heads, bias=False)
        self.scale = nn.Parameter(torch.tensor(0.1))

    def forward(self, ids_BT: Tensor) -> Tensor:
        projected: Tensor = self.proj(self.embed(ids_BT))
        return self.scale * projected


class Attention(nn.Module):
    """Causal attention with grouped keys and values, normalised and rotated queries and keys."""

    def __init__(self, config: GPTConfig, layer: int, attend: Attend) -> None:
        super().__init__()
        self.attend, self.xsa = attend, layer >= config.layers - config.xsa_layers
        self.heads, self.kv_heads, self.width = config.heads, config.kv_heads, config.dim // config.heads
        kv_dim = self.kv_heads * self.width
        self.c_q = nn.Linear(config.dim, config.dim, bias=False)
        self.c_k = nn.Linear(config.dim, kv_dim, bias=False)
        self.c_v = nn.Linear(config.dim, kv_dim, bias=False)
        self.proj = nn.Linear(config.dim, config.dim, bias=False)
        self.q_gain = nn.Parameter(torch.full((config.heads,), config.qk_gain_init))
        self.vr_lambda = nn.Parameter(torch.full((2,), 0.5)) if config.value_residual and layer else None
        self.attn_gate_proj = nn.Linear(GATE_CHANNELS, config.heads, bias=False) if config.attn_gate else None

    def forward(
        self, x_BTD: Tensor, rotation: Rotation, added_value: Tensor | None, first_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The output, and the values before any residual (the first layer's are `first_value` of the others)."""
        B, T, D = x_BTD.shape
        q_BTHK = self.c_q(x_BTD).view(B, T, self.heads, self.width)
        k_BTJK = self.c_k(x_BTD).view(B, T, self.kv_heads, self.width)
        v = self.c_v(x_BTD)
        v_BTJK = raw = (v if added_value is None else v + added_value).view(B, T, self.kv_heads, self.width)
        if self.vr_lambda is not None:
            v_BTJK = self.vr_lambda[0] * first_value + self.vr_lambda[1] * raw
        # Tables and gains are float32; attention wants one dtype.
        q_BTHK = (rotate(norm(q_BTHK), rotation) * self.q_gain[:, None]).type_as(v_BTJK)
        k_BTJK = rotate(norm(k_BTJK), rotation).type_as(v_BTJK)
        y_BTHK = self.attend(q_BTHK, k_BTJK, v_BTJK)
        if self.xsa:
            y_BTHK = self.without_own_value(y_BTHK, v_BTJK)
        if self.attn_gate_proj is not None:
            y_BTHK = y_BTHK * (2 * torch.sigmoid(self.attn_gate_proj(x_BTD[..., :GATE_CHANNELS])))[..., None]
        return self.proj(y_BTHK.reshape(B, T, D)), raw

    def without_own_value(self, y_BTHK: Tensor, v_BTJK: Tensor) -> Tensor:
        """Exclusive self-attention: take away the part of each head's output along the position's own value."""
        y_BTJGK: Tensor = y_BTHK.unflatten(2, (self.kv_heads, -1))
        own_BTJ1K = F.normalize(v_BTJK, dim=-1)[..., None, :]
        return (y_BTJGK - (y_BTJGK * own_BTJ1K).sum(-1, keepdim=True) * own_BTJ1K).flatten(2, 3)


class MLP(nn.Module):
    """fc, square of relu or of leaky relu (slope 0.5), proj."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.slope = 0.5 if config.activation == "leaky2" else 0.0
        self.fc = nn.Linear(config.dim, config.mlp_hidden, bias=False)
        self.proj = nn.Linear(config.mlp_hidden, config.dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        hidden = self.fc(x_BTD)
        y_BTD: Tensor = self.proj((F.leaky_relu(hidden, self.slope) if self.slope else F.relu(hidden)).square())
        return y_BTD


class Block(nn.Module):
    """Mix the first stream back in, then attention and MLP, each with a learned scale per channel."""

    def __init__(self, config: GPTConfig, layer: int, attend: Attend) -> None:
        super().__init__()
        self.input_scale = 1 / math.sqrt(layer + 1) if config.ln_scale else 1.0
        self.parallel = layer >= config.layers - config.parallel_layers
        self.attn, self.mlp = Attention(config, layer, attend), MLP(config)
        self.attn_scale = nn.Parameter(torch.ones(config.dim))
        self.mlp_scale = nn.Parameter(torch.ones(config.dim))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(config.dim), torch.zeros(config.dim))))

    def forward(
        self,
        x_BTD: Tensor,
        first_BTD: Tensor,
        rotation: Rotation,
        added_value: Tensor | None,
        first_value: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The stream after this block, and its attention's own values."""
        mix_SD = self.resid_mix.to(x_BTD.dtype)
        u_BTD = mix_SD[0] * x_BTD + mix_SD[1] * first_BTD
        attended, value = self.attn(self.normed(u_BTD), rotation, added_value, first_value)
        x_BTD = u_BTD + self.attn_scale.to(x_BTD.dtype) * attended
        read_BTD = u_BTD if self.parallel else x_BTD
        return x_BTD + self.mlp_scale.to(x_BTD.dtype) * self.mlp(self.normed(read_BTD)), value

    def normed(self, x_BTD: Tensor) -> Tensor:
        """What attention and MLP read."""
        return norm(x_BTD) if self.input_scale == 1 else self.input_scale * norm(x_BTD)


class GPT(nn.Module):
    """Token ids -> next-token logits; a position sees itself and what came before.

    looping: whether layers that loop do; training switches it on midway, evaluation wants it on.
    """

    def __init__(self, config: GPTConfig, attend: Attend = sdpa) -> None:
        super().__init__()
        self.config, self.looping = config, True
        self.tok_emb = nn.Embedding(config.vocab_size, config.dim)
        self.bigram = Bigram(config) if config.bigram_buckets else None
        self.smear = Smear(config.dim) if config.smear == "vector" else None
        if config.smear == "gated":
            self.smear_gate = nn.Linear(GATE_CHANNELS, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
        if config.value_embed_layers:
            self.ve_shared = ValueEmbedding(config)
            self.ve_layer_scales = nn.ParameterList(torch.ones(1) for _ in config.embedded_layers)
        skips = len(config.order(looping=True)) // 2
        self.skip_weights = nn.Parameter(torch.ones(skips, config.dim))
        self.skip_gates = nn.Parameter(torch.zeros(skips, config.dim)) if config.gated_skips else None
        self.backout_lambda = nn.Parameter(torch.tensor(config.backout_init)) if config.backout else None
        self.logit_temp = nn.Buffer(torch.ones(())) if config.logit_temperature else None
        self.blocks = nn.ModuleList(Block(config, layer, attend) for layer in range(config.layers))

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """ids int64 (B, T) -> the normalised last stream (B, T, D)."""
        # The first block, which needs no other's values, gets the stream instead.
        x_BTD = first_BTD = first_value = middle = self.embedded(ids_BT)
        rotation = rotary_tables(ids_BT.shape[1], self.config, ids_BT.device)
        added = self.added_values(ids_BT)
        order = self.config.order(self.looping)
        pushed: list[Tensor] = []
        for place, layer in enumerate(order):
            popping = place - len(order) // 2
            if popping >= 0 and pushed:
                x_BTD = self.merged(x_BTD, pushed.pop(), popping)
            x_BTD, value = self.blocks[layer](x_BTD, first_BTD, rotation, added.get(layer), first_value)
            if popping < 0:
                pushed.append(x_BTD)
            first_value = first_value if place else value
            middle = x_BTD if layer == self.config.layers // 2 else middle
        if self.backout_lambda is not None:
            x_BTD = x_BTD - self.backout_lambda.to(x_BTD.dtype) * middle
        return norm(x_BTD)

    def embedded(self, ids_BT: Tensor) -> Tensor:
        """The stream that enters the first block (B, T, D)."""
        x_BTD = self.tok_emb(ids_BT)
        if self.bigram is not None:
            x_BTD = x_BTD + self.bigram(ids_BT)
        x_BTD = norm(x_BTD)
        if not self.config.smear:
            return x_BTD
        if self.smear is not None:
            smeared: Tensor = self.smear(x_BTD)
        else:
            gate_BT1 = self.smear_lambda * torch.sigmoid(self.smear_gate(x_BTD[..., :GATE_CHANNELS]))
            smeared = gate_BT1.to(x_BTD.dtype) * shift(x_BTD)
        if self.config.smear_bos_mask:
            smeared = smeared * (ids_BT != BOS)[..., None]
        return x_BTD + smeared

    def added_values(self, ids_BT: Tensor) -> dict[int, Tensor]:
        """layer -> (B, T, J*K) that its values get from the value embedding."""
        layers = self.config.embedded_layers
        if not layers:
            return {}
        shared = self.ve_shared(ids_BT)
        return {layer: scale * shared for layer, scale in zip(layers, self.ve_layer_scales, strict=True)}

    def merged(self, x_BTD: Tensor, skip_BTD: Tensor, row: int) -> Tensor:
        """The stream with a pushed one added, or blended in by a gate."""
        skip_BTD = self.skip_weights[row].to(x_BTD.dtype) * skip_BTD
        if self.skip_gates is None:
            return x_BTD + skip_BTD
        return torch.lerp(skip_BTD, x_BTD, torch.sigmoid(self.skip_gates[row]).to(x_BTD.dtype))

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """(B, T, D) -> logits float32 (B, T, V), bent to stay within +-softcap; the embedding is the output matrix."""
        # Dividing D values instead of V logits saves a pass over the largest tensor: 30 % of this function's time.
        scaled_BTV = F.linear(hidden_BTD / self.config.softcap, self.tok_emb.weight)
        logits_BTV = self.config.softcap * torch.tanh(scaled_BTV.float())
        return logits_BTV if self.logit_temp is None else logits_BTV * self.logit_temp

    def logits(self, ids_BT: Tensor) -> Tensor:
        """ids int64 (B, T) -> float32 (B, T, V)."""
        return self.head(self.hidden(ids_BT))

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy in nats per token, float32 scalar."""
        return F.cross_entropy(self.logits(ids_BT).flatten(0, 1), targets_BT.flatten())
