"""A small script of the shape of pull request 339: 162's with a fused attention kernel and more keywords."""

import io
import os

import torch
import torch.nn.functional as F
import zstandard
from flash_attn_interface import flash_attn_func as flash_attn_3_func
from torch import nn


class Hyperparameters:
    seed = int(os.environ.get("SEED", "1337"))
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", "2048"))
    eval_seq_len = int(os.environ.get("EVAL_SEQ_LEN", "2048"))
    vocab_size = int(os.environ.get("VOCAB_SIZE", "1024"))
    num_layers = int(os.environ.get("NUM_LAYERS", "11"))
    model_dim = int(os.environ.get("MODEL_DIM", "512"))
    num_heads = int(os.environ.get("NUM_HEADS", "8"))
    num_kv_heads = int(os.environ.get("NUM_KV_HEADS", "4"))
    mtp_num_heads = int(os.environ.get("MTP_NUM_HEADS", "2"))
    backout_enabled = bool(int(os.environ.get("BACKOUT_ENABLED", "1")))
    qat_enabled = False


@torch.compile
def normalized(x):
    return F.rms_norm(x, x.shape[-1:])


class GPT(nn.Module):
    def __init__(
        self, vocab_size, num_layers, model_dim, num_heads, num_kv_heads, mtp_num_heads=0, backout=False, rope_dims=0
    ):
        super().__init__()
        self.heads, self.kv_heads, self.size = num_heads, num_kv_heads, model_dim // num_heads
        self.tok_emb = nn.Embedding(vocab_size, model_dim)
        self.c_q = nn.ModuleList([nn.Linear(model_dim, model_dim, bias=False) for _ in range(num_layers)])
        kv = 2 * num_kv_heads * self.size
        self.c_kv = nn.ModuleList([nn.Linear(model_dim, kv, bias=False) for _ in range(num_layers)])
        self.mtp_heads = nn.ModuleList([nn.Linear(model_dim, vocab_size) for _ in range(mtp_num_heads)])
        self.backout_lambda = nn.Parameter(torch.tensor(0.2)) if backout else None

    def forward_logits(self, ids):
        x = normalized(self.tok_emb(ids))
        b, t, d = x.shape
        first = x
        for c_q, c_kv in zip(self.c_q, self.c_kv, strict=True):
            n = normalized(x)
            k, v = c_kv(n).view(b, t, 2, self.kv_heads, self.size).unbind(2)
            y = flash_attn_3_func(c_q(n).view(b, t, self.heads, self.size), k, v, causal=True)
            x = x + y.reshape(b, t, d)
        if self.backout_lambda is not None:
            x = x - self.backout_lambda * first
        return F.linear(normalized(x), self.tok_emb.weight)

    def forward(self, ids, targets):
        return F.cross_entropy(self.forward_logits(ids).flatten(0, 1).float(), targets.flatten())


def quantize_mixed_int6(state):
    stored, labels = {}, {}
    for name, tensor in state.items():
        if tensor.ndim == 2:
            scale = (tensor.abs().amax(1) / 31).clamp_min(1 / 31).half()
            stored[f"{name}.q"] = (tensor / scale.float()[:, None]).round().clamp(-32, 31).to(torch.int8)
            stored[f"{name}.scale"] = scale
            labels[name] = {"type": "int6"}
        else:
            stored[name] = tensor.float()
            labels[name] = "passthrough_ctrl"
    return stored, labels


def dequantize_mixed_int6(result, meta, template_sd):
    out = {}
    for name, like in template_sd.items():
        if meta[name] == "passthrough_ctrl":
            out[name] = result[name].to(like.dtype)
        else:
            out[name] = (result[f"{name}.q"].float() * result[f"{name}.scale"].float()[:, None]).to(like.dtype)
    return out


def save(model, path):
    state = {name: tensor for name, tensor in model.state_dict().items() if "mtp_heads" not in name}
    stored, labels = quantize_mixed_int6(state)
    buffer = io.BytesIO()
    torch.save({"w": stored, "m": labels}, buffer)
    with open(path, "wb") as file:
        file.write(zstandard.ZstdCompressor(level=22).compress(buffer.getvalue()))


def main():
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA is required")


if __name__ == "__main__":
    main()
