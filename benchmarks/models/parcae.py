"""A looped language model of another design than our GPT: Parcae, of the public repository coder-2011/parameter-golf.

Embedding, prelude blocks, a core of blocks that runs several times, coda blocks, norm; the embedding is the output
matrix.  Before each pass the core shrinks its state channel by channel and adds a projection of what the prelude gave.
Modules have the names of that repository's state dicts.  The facts are those of its train_gpt_parcae.py at commit
001e881b7c7ec18100405bdb4632694bf944bd1e; the code is ours.

Legend of shape suffixes: B batch, T tokens, D model width, H query heads, J key/value heads, K width of a head, R
rotated width, V vocabulary.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.errors import InputError
from packager.importers.read_any import read_any

# Neither shapes nor file names tell these; they are the script's defaults.
SOFTCAP = 30.0
ROPE_BASE = 10_000.0
NORM_EPS = 1e-6
QK_EPS = 1.1920929e-07  # float32's, torch's choice when none is given
GATE = ".ve_gate.weight"
Rotation = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockConfig:
    """gate_channels: inputs of `ve_gate`, 0 where a block has none."""

    heads: int
    kv_heads: int
    mlp_hidden: int
    gate_channels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ParcaeConfig:
    """seq_len: tokens of a training sequence.  passes: of the core.  rope_dims: channels of each head that rotate."""

    vocab_size: int
    dim: int
    seq_len: int
    passes: int
    rope_dims: int
    qk_norm: bool
    prelude: tuple[BlockConfig, ...]
    core_block: tuple[BlockConfig, ...]
    coda: tuple[BlockConfig, ...]
    softcap: float = SOFTCAP

    @classmethod
    def read(cls, tensors: Mapping[str, np.ndarray], name: str) -> "ParcaeConfig":
        """From the shapes of a state dict and the name of its file, which tells what no shape does.

        The author's names say `recur2`, `seq512`, `rope16`, and `qknorm` where queries and keys are normalised.
        Raises: InputError for a name without the first three, or tensors of another model.
        """
        told = {fact: re.search(rf"_{fact}(\d+)_", name) for fact in ("recur", "seq", "rope")}
        if missing := [fact for fact, found in told.items() if not found]:
            raise InputError(
                f"the file's name lacks `{missing[0]}N`, which its weights do not tell",
                where=name,
                hint="name it as in `..._recur2_seq512_..._qknorm_rope16_...`",
            )
        passes, seq_len, rope_dims = (int(found[1]) for found in told.values() if found)
        try:
            vocab_size, dim = tensors["tok_emb.weight"].shape
            prelude, core_block, coda = (_blocks(tensors, stage) for stage in ("prelude", "core_block", "coda"))
        except (LookupError, ValueError, ZeroDivisionError):
            raise InputError("are not the tensors of a Parcae model", where=name) from None
        return cls(
            vocab_size=vocab_size,
            dim=dim,
            seq_len=seq_len,
            passes=passes,
            rope_dims=rope_dims,
            qk_norm="_qknorm_" in name,
            prelude=prelude,
            core_block=core_block,
            coda=coda,
        )


def _blocks(tensors: Mapping[str, np.ndarray], stage: str) -> tuple[BlockConfig, ...]:
    """A gate has a row for each key/value head, so its shape gives the width of a head, the same in every block."""
    gates = {name.removesuffix(GATE): array.shape for name, array in tensors.items() if name.endswith(GATE)}
    gated = min(gates)
    width = len(tensors[f"{gated}.c_k.weight"]) // gates[gated][0]
    count = sum(name.startswith(f"{stage}.") and name.endswith(".mlp.fc.weight") for name in tensors)
    return tuple(
        BlockConfig(
            heads=len(tensors[f"{stage}.{i}.attn.c_q.weight"]) // width,
            kv_heads=len(tensors[f"{stage}.{i}.attn.c_k.weight"]) // width,
            mlp_hidden=len(tensors[f"{stage}.{i}.mlp.fc.weight"]),
            gate_channels=gates.get(f"{stage}.{i}.attn", (0, 0))[1],
        )
        for i in range(count)
    )


def rotary_tables(tokens: int, rope_dims: int, device: torch.device) -> Rotation:
    """(cos, sin), each float32 (T, 1, R/2)."""
    frequencies = ROPE_BASE ** -(torch.arange(0, rope_dims, 2, device=device, dtype=torch.float32) / rope_dims)
    angles = torch.outer(torch.arange(tokens, device=device, dtype=torch.float32), frequencies)[:, None]
    return angles.cos(), angles.sin()


def rotate(x_BTHK: Tensor, rotation: Rotation) -> Tensor:
    """Rotation of neighbouring channels, of the first R, by the angle."""
    cos, sin = rotation
    pairs, rest = x_BTHK.split((2 * cos.shape[-1], x_BTHK.shape[-1] - 2 * cos.shape[-1]), dim=-1)
    a, b = pairs[..., 0::2], pairs[..., 1::2]
    turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    return torch.cat((turned, rest), dim=-1)


class Attention(nn.Module):
    """Causal attention with grouped keys and values.

    ve_gate: would gate value embeddings.  Runs without them store it all the same; nothing reads it.
    """

    def __init__(self, config: ParcaeConfig, block: BlockConfig) -> None:
        super().__init__()
        dim, self.width = config.dim, config.dim // block.heads
        self.qk_norm, kv_dim = config.qk_norm, block.kv_heads * self.width
        self.c_q = nn.Linear(dim, dim, bias=False)
        self.c_k = nn.Linear(dim, kv_dim, bias=False)
        self.c_v = nn.Linear(dim, kv_dim, bias=False)
        self.c_proj = nn.Linear(dim, dim, bias=False)
        self.ve_gate = nn.Linear(block.gate_channels, block.kv_heads, bias=False) if block.gate_channels else None

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> Tensor:
        q_BTHK, k_BTJK, v_BTJK = (
            layer(x_BTD).unflatten(-1, (-1, self.width)) for layer in (self.c_q, self.c_k, self.c_v)
        )
        q_BTHK, k_BTJK = rotate(q_BTHK, rotation), rotate(k_BTJK, rotation)
        if self.qk_norm:
            q_BTHK = F.rms_norm(q_BTHK, (self.width,), eps=QK_EPS)
            k_BTJK = F.rms_norm(k_BTJK, (self.width,), eps=QK_EPS)
        q, k, v = (each.transpose(1, 2) for each in (q_BTHK, k_BTJK, v_BTJK))
        y_BHTK = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        attended: Tensor = self.c_proj(y_BHTK.transpose(1, 2).flatten(2))
        return attended


class MLP(nn.Module):
    """fc, GELU, proj."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, hidden, bias=False)
        self.proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.proj(F.gelu(self.fc(x_BTD)))
        return y_BTD


class Block(nn.Module):
    """Attention, then MLP, each of the normed stream and added to it."""

    def __init__(self, config: ParcaeConfig, block: BlockConfig) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.RMSNorm(config.dim, eps=NORM_EPS), nn.RMSNorm(config.dim, eps=NORM_EPS)
        self.attn, self.mlp = Attention(config, block), MLP(config.dim, block.mlp_hidden)

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> Tensor:
        x_BTD = x_BTD + self.attn(self.norm_1(x_BTD), rotation)
        y_BTD: Tensor = x_BTD + self.mlp(self.norm_2(x_BTD))
        return y_BTD


class Injection(nn.Module):
    """state -> exp(-dt exp(A_log)) state + dt B input, with dt = softplus(dt_bias); all but B by channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.zeros(dim))
        self.dt_bias = nn.Parameter(torch.zeros(dim))
        self.B = nn.Parameter(torch.eye(dim))

    def forward(self, state_BTD: Tensor, input_BTD: Tensor) -> Tensor:
        dt_D = F.softplus(self.dt_bias)
        return torch.exp(-dt_D * self.A_log.exp()) * state_BTD + dt_D * F.linear(input_BTD, self.B)


class Parcae(nn.Module):
    """Token ids -> next-token logits; a position sees itself and what came before."""

    def __init__(self, config: ParcaeConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.dim)
        self.prelude = nn.ModuleList(Block(config, block) for block in config.prelude)
        self.adapter = Injection(config.dim)
        self.core_block = nn.ModuleList(Block(config, block) for block in config.core_block)
        self.project_out = nn.Linear(config.dim, config.dim, bias=False)
        self.coda = nn.ModuleList(Block(config, block) for block in config.coda)
        self.final_norm = nn.RMSNorm(config.dim, eps=NORM_EPS)

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """ids int64 (B, T) -> the normalised last stream (B, T, D)."""
        rotation = rotary_tables(ids_BT.shape[1], self.config.rope_dims, ids_BT.device)
        input_BTD = _through(self.prelude, self.tok_emb(ids_BT), rotation)
        # The original starts from noise of std 0.005, not from zeros: it moves the file's score by 1e-7 bpb.
        x_BTD = torch.zeros_like(input_BTD)
        for _ in range(self.config.passes):
            x_BTD = _through(self.core_block, self.adapter(x_BTD, input_BTD), rotation)
        normed: Tensor = self.final_norm(_through(self.coda, self.project_out(x_BTD), rotation))
        return normed

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """(B, T, D) -> logits float32 (B, T, V), bent to stay within +-softcap."""
        softcap = self.config.softcap
        return softcap * torch.tanh(F.linear(hidden_BTD, self.tok_emb.weight).float() / softcap)

    def logits(self, ids_BT: Tensor) -> Tensor:
        """ids int64 (B, T) -> float32 (B, T, V)."""
        return self.head(self.hidden(ids_BT))


def _through(blocks: nn.ModuleList, x_BTD: Tensor, rotation: Rotation) -> Tensor:
    for block in blocks:
        x_BTD = block(x_BTD, rotation)
    return x_BTD


def load(path: str | Path) -> Parcae:
    """A model from its file, float32, in evaluation mode.

    Raises: InputError for a file that is damaged, of another model, or whose name lacks what its weights do not tell.
    """
    tensors = read_any(path).tensors
    model = Parcae(ParcaeConfig.read(tensors, Path(path).name))
    try:
        model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    except RuntimeError as error:
        raise InputError(f"does not fit: {' '.join(str(error).split()):.200}", where=str(path)) from None
    return model.eval()
