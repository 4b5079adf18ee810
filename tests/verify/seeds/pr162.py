"""A small script of the shape of pull request 162: keywords, zstd around torch.save, all loading inside main()."""

import io
import os

import torch
import torch.nn.functional as F
import zstandard
from torch import Tensor, nn


class Hyperparameters:
    val_files = os.environ.get("VAL_FILES", "./data/fineweb_val_*.bin")
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", "1024"))
    vocab_size = int(os.environ.get("VOCAB_SIZE", "1024"))
    num_layers = int(os.environ.get("NUM_LAYERS", "9"))
    model_dim = int(os.environ.get("MODEL_DIM", "512"))
    num_heads = int(os.environ.get("NUM_HEADS", "8"))
    num_kv_heads = int(os.environ.get("NUM_KV_HEADS", "4"))
    logit_softcap = float(os.environ.get("LOGIT_SOFTCAP", "30.0"))
    bigram_vocab_size = int(os.environ.get("BIGRAM_VOCAB_SIZE", "64"))
    iterations = 3


class BigramHash(nn.Module):
    def __init__(self, buckets, dim):
        super().__init__()
        self.buckets = buckets
        self.embed = nn.Embedding(buckets, dim)

    def forward(self, ids):
        ids = ids.to(torch.int32)
        slots = torch.full_like(ids, self.buckets - 1)
        slots[:, 1:] = torch.bitwise_xor(36313 * ids[:, 1:], 27191 * ids[:, :-1]) % (self.buckets - 1)
        return self.embed(slots.long())


class Block(nn.Module):
    def __init__(self, dim, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, dim // heads
        self.c_q = nn.Linear(dim, dim, bias=False)
        self.c_kv = nn.Linear(dim, 2 * kv_heads * self.size, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        b, t, d = x.shape
        n = F.rms_norm(x, (d,))
        q = self.c_q(n).view(b, t, self.heads, self.size).transpose(1, 2)
        k, v = self.c_kv(n).view(b, t, 2, self.kv_heads, self.size).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return x + self.scale * self.proj(y.transpose(1, 2).reshape(b, t, d))


class GPT(nn.Module):
    def __init__(self, vocab_size, num_layers, model_dim, num_heads, num_kv_heads, logit_softcap, bigram_vocab_size):
        super().__init__()
        self.softcap = logit_softcap
        self.tok_emb = nn.Embedding(vocab_size, model_dim)
        self.bigram = BigramHash(bigram_vocab_size, model_dim)
        self.blocks = nn.ModuleList([Block(model_dim, num_heads, num_kv_heads) for _ in range(num_layers)])

    def forward_logits(self, ids: Tensor) -> Tensor:
        x = self.tok_emb(ids) + self.bigram(ids)
        for block in self.blocks:
            x = block(x)
        x = F.linear(F.rms_norm(x, x.shape[-1:]), self.tok_emb.weight)
        return self.softcap * torch.tanh(x / self.softcap)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.forward_logits(ids).flatten(0, 1).float(), targets.flatten())


def quantize_mixed_int6(state):
    stored, labels = {}, {}
    for name, tensor in state.items():
        if tensor.ndim == 2 and "blocks" in name:
            scale = (tensor.abs().amax(1) / 31).clamp_min(1e-8).half()
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
    return out


def save(model, path):
    stored, labels = quantize_mixed_int6(model.state_dict())
    buffer = io.BytesIO()
    torch.save({"w": stored, "m": labels}, buffer)
    with open(path, "wb") as file:
        file.write(zstandard.ZstdCompressor(level=22).compress(buffer.getvalue()))


def eval_val(model, val_tokens, length):
    model.eval()
    total = torch.zeros(())
    with torch.inference_mode():
        for start in range(0, val_tokens.numel() - length, length):
            x, y = val_tokens[start : start + length], val_tokens[start + 1 : start + length + 1]
            loss = model(x[None], y[None])
            total += loss
    return float(total)


def main():
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA is required")
    args = Hyperparameters()
    model = GPT(
        args.vocab_size,
        args.num_layers,
        args.model_dim,
        args.num_heads,
        args.num_kv_heads,
        args.logit_softcap,
        args.bigram_vocab_size,
    )
    val_tokens, train_tokens = torch.arange(64), torch.arange(64)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):  # warm-up on training data
        warmup_loss = model(train_tokens[None, :-1], train_tokens[None, 1:])
        warmup_loss.backward()
        optimizer.zero_grad()
    for step in range(args.iterations):
        val_loss = eval_val(model, val_tokens, args.train_seq_len)
        x, y = train_tokens[None, :-1], train_tokens[None, 1:]
        loss = model(x, y)
        (loss / 1).backward()
        optimizer.step()
        print(f"step:{step} val_loss:{val_loss:.4f}")
    save(model, "final_model.int8.ptz")
    with open("final_model.int8.ptz", "rb") as file:
        blob = torch.load(io.BytesIO(zstandard.ZstdDecompressor().decompress(file.read())), map_location="cpu")
    model.load_state_dict(dequantize_mixed_int6(blob["w"], blob["m"], model.state_dict()), strict=True)
    eval_val(model, val_tokens, args.train_seq_len)


if __name__ == "__main__":
    main()
