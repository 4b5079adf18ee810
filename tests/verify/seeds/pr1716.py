"""A small script of the shape of pull request 1716: GPT(h), its own `deserialize`, byte shuffle and brotli, a loop."""

import io
import os

import brotli
import numpy as np
import torch
import torch.nn.functional as F
from flash_attn_interface import flash_attn_func as flash_attn_3_func
from torch import nn


class Hyperparameters:
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", "2048"))
    eval_seq_len = int(os.environ.get("EVAL_SEQ_LEN", "2048"))
    vocab_size = int(os.environ.get("VOCAB_SIZE", "8192"))
    model_dim = int(os.environ.get("MODEL_DIM", "512"))
    num_heads = int(os.environ.get("NUM_HEADS", "8"))
    num_loops = int(os.environ.get("NUM_LOOPS", "2"))
    compressor = os.environ.get("COMPRESSOR", "brotli")
    quantized_model_path = "final_model.int6.ptz"


def log(message, console=True):
    print(f"log {message if console else ''}")


class GPT(nn.Module):
    def __init__(self, h):
        super().__init__()
        self.heads, self.size, self.loops = h.num_heads, h.model_dim // h.num_heads, h.num_loops
        self.looping_active = False
        self.tok_emb = nn.Embedding(h.vocab_size, h.model_dim)
        self.c_qkv = nn.Linear(h.model_dim, 3 * h.model_dim, bias=False)
        self.register_buffer("inv_freq", 1 / 10_000 ** torch.linspace(0, 1, self.size // 2), persistent=False)

    def forward_logits(self, ids):
        x = F.rms_norm(self.tok_emb(ids), (self.tok_emb.embedding_dim,))
        b, t, d = x.shape
        angle = torch.arange(t, dtype=self.inv_freq.dtype)[:, None] * self.inv_freq
        for _ in range(1 + self.looping_active * self.loops):
            q, k, v = self.c_qkv(F.rms_norm(x, (d,))).view(b, t, 3, self.heads, self.size).unbind(2)
            q1, q2 = q.chunk(2, -1)
            cos, sin = angle.cos()[:, None], angle.sin()[:, None]
            q = torch.cat((q1 * cos + q2 * sin, -q1 * sin + q2 * cos), -1)
            x = x + flash_attn_3_func(q, k, v, causal=True).reshape(b, t, d)
        return F.linear(F.rms_norm(x, (d,)), self.tok_emb.weight)

    def forward(self, ids, targets):
        return F.cross_entropy(self.forward_logits(ids).flatten(0, 1).float(), targets.flatten())


def _byte_shuffle(data, stride=2):
    lanes = np.frombuffer(data, np.uint8)
    return b"BSHF" + bytes([stride]) + np.concatenate([lanes[i::stride] for i in range(stride)]).tobytes()


def _byte_unshuffle(data):
    stride, lanes = data[4], np.frombuffer(data, np.uint8, offset=5)
    out, at = np.empty(len(lanes), np.uint8), 0
    for i in range(stride):
        part = out[i::stride]
        part[:] = lanes[at : at + len(part)]
        at += len(part)
    return out.tobytes()


def collect_hessians(model, train_tokens):
    hessians = {}
    with torch.no_grad():
        for start in range(0, train_tokens.numel() - 8, 8):
            x = model.tok_emb(train_tokens[start : start + 8])
            hessians["c_qkv"] = hessians.get("c_qkv", 0) + x.T @ x
    return hessians


def gptq_mixed_quantize(state):
    stored, labels = {}, {}
    for name, tensor in state.items():
        scale = (12.85 * tensor.std(1) / 31).clamp_min(1e-8).half()
        stored[f"{name}.q"] = (tensor / scale.float()[:, None]).round().clamp(-31, 31).to(torch.int8)
        stored[f"{name}.scale"] = scale
        labels[name] = "gptq (int6)"
    return stored, labels


def dequantize_mixed(result, meta, template_sd):
    return {
        name: (result[f"{name}.q"].float() * result[f"{name}.scale"].float()[:, None]).to(like.dtype)
        for name, like in template_sd.items()
    }


def save(model, path):
    stored, labels = gptq_mixed_quantize(model.state_dict())
    buffer = io.BytesIO()
    torch.save({"w": stored, "m": labels}, buffer)
    with open(path, "wb") as file:
        file.write(brotli.compress(_byte_shuffle(buffer.getvalue()), quality=11))


def deserialize(h, device):
    model = GPT(h).to(device).bfloat16()
    with open(h.quantized_model_path, "rb") as file:
        blob = torch.load(io.BytesIO(_byte_unshuffle(brotli.decompress(file.read()))), map_location="cpu")
    model.load_state_dict(dequantize_mixed(blob["w"], blob["m"], model.state_dict()), strict=True)
    log(f"loaded from {h.quantized_model_path}")
    return model


def main():
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA is required")


if __name__ == "__main__":
    main()
