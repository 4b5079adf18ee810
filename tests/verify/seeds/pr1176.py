"""A small script of the shape of pull request 1176: matrices held in banks, lzma, hidden states and head apart.

Its evaluation trains on the held-out tokens (with and without guard) and fits a delta on the targets it scores.
"""

import io
import lzma
import os

import torch
import torch.nn.functional as F
from flash_attn_interface import flash_attn_func as flash_attn_3_func
from torch import nn


class Hyperparameters:
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", "2048"))
    eval_seq_len = int(os.environ.get("EVAL_SEQ_LEN", "2048"))
    vocab_size = int(os.environ.get("VOCAB_SIZE", "1024"))
    num_layers = int(os.environ.get("NUM_LAYERS", "11"))
    model_dim = int(os.environ.get("MODEL_DIM", "512"))
    num_heads = int(os.environ.get("NUM_HEADS", "8"))
    num_kv_heads = int(os.environ.get("NUM_KV_HEADS", "4"))
    dtg_enabled = bool(int(os.environ.get("DTG_ENABLED", "0")))
    ve_layers = os.environ.get("VE_LAYERS", "9,10")
    ttt_epochs = int(os.environ.get("TTT_EPOCHS", "3"))


class GPT(nn.Module):
    def __init__(self, vocab_size, num_layers, model_dim, num_heads, num_kv_heads, dtg=False, ve_layers=""):
        super().__init__()
        self.layers, self.heads, self.kv_heads, self.size = num_layers, num_heads, num_kv_heads, model_dim // num_heads
        self.tok_emb = nn.Embedding(vocab_size, model_dim)
        self.qo_bank = nn.Parameter(0.3 * torch.randn(2 * num_layers, model_dim, model_dim))
        self.kv_bank = nn.Parameter(0.3 * torch.randn(2 * num_layers, num_kv_heads * self.size, model_dim))
        self.gate = nn.Parameter(torch.ones(model_dim)) if dtg else None

    def forward_hidden(self, ids):
        x = self.tok_emb(ids)
        b, t, d = x.shape
        for layer in range(self.layers):
            n = F.rms_norm(x, (d,))
            q = F.linear(n, self.qo_bank[layer]).view(b, t, self.heads, self.size)
            k = F.linear(n, self.kv_bank[layer]).view(b, t, self.kv_heads, self.size)
            v = F.linear(n, self.kv_bank[self.layers + layer]).view(b, t, self.kv_heads, self.size)
            y = flash_attn_3_func(q, k, v, causal=True).reshape(b, t, d)
            x = x + F.linear(y, self.qo_bank[self.layers + layer])
        return F.rms_norm(x, (d,))

    def compute_logits(self, hidden):
        return 30.0 * torch.tanh(F.linear(hidden, self.tok_emb.weight) / 30.0)

    def forward_logits(self, ids):
        return self.compute_logits(self.forward_hidden(ids))

    def forward(self, ids, targets):
        return F.cross_entropy(self.forward_logits(ids).flatten(0, 1).float(), targets.flatten())


def split_banks(state, num_layers):
    out = {}
    for name, tensor in state.items():
        if name == "qo_bank":
            for i in range(num_layers):
                out[f"blocks.{i}.attn.c_q.weight"], out[f"blocks.{i}.attn.proj.weight"] = (
                    tensor[i],
                    tensor[num_layers + i],
                )
        elif name == "kv_bank":
            for i in range(num_layers):
                out[f"blocks.{i}.attn.c_k.weight"], out[f"blocks.{i}.attn.c_v.weight"] = (
                    tensor[i],
                    tensor[num_layers + i],
                )
        else:
            out[name] = tensor
    return out


def _rebank_state_dict(sd, num_layers, template_sd):
    out = {}
    for name, like in template_sd.items():
        if name in ("qo_bank", "kv_bank"):
            first, second = ("c_q", "proj") if name == "qo_bank" else ("c_k", "c_v")
            parts = [sd[f"blocks.{i}.attn.{kind}.weight"] for kind in (first, second) for i in range(num_layers)]
            out[name] = torch.stack(parts).to(like.dtype)
        else:
            out[name] = sd[name].to(like.dtype)
    return out


def quantize_mixed_int6(state):
    stored, labels = {}, {}
    for name, tensor in state.items():
        if tensor.ndim == 2 and "attn" in name:
            scale = (tensor.abs().amax(1) / 31).clamp_min(1 / 31).half()
            stored[f"{name}.q"] = (tensor / scale.float()[:, None]).round().clamp(-32, 31).to(torch.int8)
            stored[f"{name}.scale"] = scale
            labels[name] = {"type": "int6"}
        else:
            stored[name] = tensor.half()
            labels[name] = "passthrough"
    return stored, labels


def dequantize_mixed_int6(result, meta, template_sd):
    out = {}
    for name, like in template_sd.items():
        if meta[name] == "passthrough":
            out[name] = result[name].to(like.dtype)
        else:
            out[name] = (result[f"{name}.q"].float() * result[f"{name}.scale"].float()[:, None]).to(like.dtype)
        assert out[name].shape == like.shape
    return out


def save(model, path):
    stored, labels = quantize_mixed_int6(split_banks(model.state_dict(), model.layers))
    buffer = io.BytesIO()
    torch.save({"w": stored, "m": labels}, buffer)
    with open(path, "wb") as file:
        file.write(lzma.compress(buffer.getvalue(), preset=9))


def eval_val_sliding_ttt(args, base_model, val_tokens, length):
    num_chunks = max((val_tokens.numel() - 1) // length, 1)
    optimizer = torch.optim.SGD(base_model.parameters(), lr=0.002)
    for ci in range(num_chunks):
        with torch.inference_mode():
            scored = base_model.forward_logits(val_tokens[None, ci * length : (ci + 1) * length])
        is_last_chunk = ci == num_chunks - 1
        if not is_last_chunk and scored is not None:
            chunk = val_tokens[ci * length : (ci + 1) * length + 1]
            for _ in range(args.ttt_epochs):
                loss = base_model(chunk[None, :-1], chunk[None, 1:])
                loss.backward()
                optimizer.step()


def adapt_first(base_model, tokens, length):
    for start in range(0, tokens.numel() - 1, length):
        part = tokens[start : start + length + 1]
        loss = base_model(part[None, :-1], part[None, 1:])
        loss.backward()


def eval_val_slot(base_model, val_tokens, length, stride):
    delta = torch.zeros(1, 1, base_model.tok_emb.embedding_dim, requires_grad=True)
    optimizer = torch.optim.AdamW([delta], lr=0.003)
    mask = torch.zeros(1, length)
    for i, s in enumerate(range(stride, length)):
        mask[0, s:length] = 1.0
        x, y = val_tokens[None, i : i + length], val_tokens[None, i + 1 : i + length + 1]
        with torch.no_grad():
            hidden = base_model.forward_hidden(x)
        logits = base_model.compute_logits(hidden + delta)
        losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
        (losses * mask.flatten()).sum().backward()
        optimizer.step()


def main():
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA is required")
    args = Hyperparameters()
    val_tokens = torch.arange(64)
    model = GPT(args.vocab_size, args.num_layers, args.model_dim, args.num_heads, args.num_kv_heads)
    eval_val_sliding_ttt(args, model, val_tokens, 16)
    adapt_first(model, val_tokens, 16)
    eval_val_slot(model, val_tokens, 16, 4)


if __name__ == "__main__":
    main()
