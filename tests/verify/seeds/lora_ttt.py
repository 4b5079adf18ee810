"""A small script of the shape of the record 2026-03-17_LoRA_TTT: the baseline's, with adapters for its forward."""

import io
import os
import zlib

import torch
import torch.nn.functional as F
from flash_attn_interface import flash_attn_func, flash_attn_varlen_func
from torch import Tensor, nn

BOS_ID = 1


class Hyperparameters:
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 1024))
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    num_layers = int(os.environ.get("NUM_LAYERS", 9))
    num_kv_heads = int(os.environ.get("NUM_KV_HEADS", 4))
    model_dim = int(os.environ.get("MODEL_DIM", 512))
    num_heads = int(os.environ.get("NUM_HEADS", 8))
    logit_softcap = float(os.environ.get("LOGIT_SOFTCAP", 30.0))
    ttt_lora_rank = int(os.environ.get("TTT_LORA_RANK", 8))
    ttt_chunk_size = int(os.environ.get("TTT_CHUNK_SIZE", 256))


class BatchedLoRA(nn.Module):
    """One low-rank change of a linear layer per row of the batch."""

    def __init__(self, rows: int, width: int, out: int, rank: int):
        super().__init__()
        self.A = nn.Parameter(torch.empty(rows, rank, width).uniform_(-1, 1) / width**0.5)
        self.B = nn.Parameter(torch.zeros(rows, out, rank))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.A.transpose(1, 2) @ self.B.transpose(1, 2)


class Layer(nn.Module):
    def __init__(self, dim: int, heads: int, kv_heads: int):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.c_q, self.proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.c_kv = nn.Linear(dim, 2 * kv_heads * (dim // heads), bias=False)

    def forward(self, x: Tensor, cu_seqlens: Tensor | None, delta=None) -> Tensor:
        n = F.rms_norm(x, (x.size(-1),))
        q = (self.c_q(n) + (delta(n) if delta is not None else 0)).unflatten(-1, (self.heads, -1))
        k, v = self.c_kv(n).unflatten(-1, (2, self.kv_heads, -1)).unbind(2)
        if cu_seqlens is None:
            y = flash_attn_func(q, k, v, causal=True)
        else:
            longest = int(cu_seqlens.diff().max())
            y = flash_attn_varlen_func(
                q.flatten(0, 1),
                k.flatten(0, 1),
                v.flatten(0, 1),
                cu_seqlens_q=cu_seqlens,
                cu_seqlens_k=cu_seqlens,
                max_seqlen_q=longest,
                max_seqlen_k=longest,
                causal=True,
            ).view_as(q)
        return x + self.proj(y.flatten(2))


def documents(ids: Tensor) -> Tensor:
    """Where documents and rows begin, and the end, int32."""
    starts = ids == BOS_ID
    starts[:, 0] = True
    return F.pad(starts.flatten().nonzero().flatten(), (0, 1), value=ids.numel()).int()


class GPT(nn.Module):
    def __init__(self, vocab_size, num_layers, model_dim, num_heads, num_kv_heads, logit_softcap):
        super().__init__()
        self.logit_softcap = logit_softcap
        self.tok_emb = nn.Embedding(vocab_size, model_dim)
        self.blocks = nn.ModuleList(Layer(model_dim, num_heads, num_kv_heads) for _ in range(num_layers))

    def forward(self, input_ids: Tensor, target_ids: Tensor, lora=None) -> Tensor:
        x = self.tok_emb(input_ids)
        for place, block in enumerate(self.blocks):
            x = block(x, documents(input_ids), lora.q_loras[place] if lora else None)
        projected = F.linear(F.rms_norm(x, (x.size(-1),)), self.tok_emb.weight)
        if lora:
            projected = projected + lora.lm_head_lora(x)
        logits = self.logit_softcap * torch.tanh(projected / self.logit_softcap)
        if lora:
            return F.cross_entropy(logits.float().transpose(1, 2), target_ids, reduction="none")
        return F.cross_entropy(logits.float().transpose(1, 2), target_ids, reduction="mean")


def dequantize_state_dict_int8(obj):
    state = {name: tensor.float() for name, tensor in obj["passthrough"].items()}
    return state | {
        name: levels.float() * obj["scales"][name].float()[:, None] for name, levels in obj["quantized"].items()
    }


def save(model, path):
    quantized, scales = {}, {}
    for name, tensor in model.state_dict().items():
        scales[name] = (tensor.abs().amax(1) / 127).half()
        quantized[name] = (tensor / scales[name].float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    buffer = io.BytesIO()
    content = {"quantized": quantized, "scales": scales, "dtypes": {}, "passthrough": {}}
    torch.save({"__quant_format__": "int8_clean_per_row_v1", **content}, buffer)
    with open(path, "wb") as file:
        file.write(zlib.compress(buffer.getvalue()))


if __name__ == "__main__":
    raise SystemExit("CUDA is required")
