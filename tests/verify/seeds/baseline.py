"""A small script of the shape of the challenge's baseline: a loss but no logits, int8 rows in zlib."""

import io
import os
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Hyperparameters:
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 1024))
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    num_layers = int(os.environ.get("NUM_LAYERS", 9))
    num_kv_heads = int(os.environ.get("NUM_KV_HEADS", 4))
    model_dim = int(os.environ.get("MODEL_DIM", 512))
    num_heads = int(os.environ.get("NUM_HEADS", 8))
    mlp_mult = int(os.environ.get("MLP_MULT", 2))
    tie_embeddings = bool(int(os.environ.get("TIE_EMBEDDINGS", "1")))
    tied_embed_init_std = float(os.environ.get("TIED_EMBED_INIT_STD", 0.005))
    logit_softcap = float(os.environ.get("LOGIT_SOFTCAP", 30.0))


class Wide(nn.Linear):
    """Weights in float32, used in the dtype of what comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Layer(nn.Module):
    def __init__(self, dim: int, heads: int, kv_heads: int, mult: int):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.c_q, self.proj = Wide(dim, dim, bias=False), Wide(dim, dim, bias=False)
        self.c_kv = Wide(dim, 2 * kv_heads * (dim // heads), bias=False)
        self.up, self.down = Wide(dim, mult * dim, bias=False), Wide(mult * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n = F.rms_norm(x, (x.size(-1),))
        q = self.c_q(n).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.c_kv(n).unflatten(-1, (2, self.kv_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        return x + self.down(torch.relu(self.up(F.rms_norm(x, (x.size(-1),)))).square())


class GPT(nn.Module):
    def __init__(
        self,
        vocab_size: int,
        num_layers: int,
        model_dim: int,
        num_heads: int,
        num_kv_heads: int,
        mlp_mult: int,
        tie_embeddings: bool,
        tied_embed_init_std: float,
        logit_softcap: float,
    ):
        super().__init__()
        self.logit_softcap = logit_softcap
        self.tok_emb = nn.Embedding(vocab_size, model_dim)
        self.blocks = nn.ModuleList(Layer(model_dim, num_heads, num_kv_heads, mlp_mult) for _ in range(num_layers))
        self.lm_head = None if tie_embeddings else Wide(model_dim, vocab_size, bias=False)

    def forward(self, input_ids: Tensor, target_ids: Tensor) -> Tensor:
        x = F.rms_norm(self.tok_emb(input_ids), (self.tok_emb.embedding_dim,))
        for block in self.blocks:
            x = block(x)
        x = F.rms_norm(x, (x.size(-1),)).reshape(-1, x.size(-1))
        projected = F.linear(x, self.tok_emb.weight) if self.lm_head is None else self.lm_head(x)
        logits = self.logit_softcap * torch.tanh(projected / self.logit_softcap)
        return F.cross_entropy(logits.float(), target_ids.reshape(-1), reduction="mean")


def quantize_state_dict_int8(state):
    content = {key: {} for key in ("quantized", "scales", "dtypes", "passthrough", "qmeta")}
    for name, tensor in state.items():
        if tensor.ndim != 2:
            content["passthrough"][name] = tensor.half()
            continue
        scale = (tensor.float().abs().amax(1) / 127).clamp_min(1 / 127).half()
        content["quantized"][name] = (tensor / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        content["scales"][name] = scale
        content["dtypes"][name] = "float32"
        content["qmeta"][name] = {"scheme": "per_row", "axis": 0}
    return {"__quant_format__": "int8_clean_per_row_v1", **content}


def dequantize_state_dict_int8(obj):
    state = {name: tensor.float() for name, tensor in obj["passthrough"].items()}
    for name, levels in obj["quantized"].items():
        state[name] = (levels.float() * obj["scales"][name].float()[:, None]).to(getattr(torch, obj["dtypes"][name]))
    return state


def save(model, path):
    buffer = io.BytesIO()
    torch.save(quantize_state_dict_int8(model.state_dict()), buffer)
    with open(path, "wb") as file:
        file.write(zlib.compress(buffer.getvalue(), level=9))


def main():
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA is required")
    args = Hyperparameters()
    names = GPT.__init__.__code__.co_varnames[1:10]
    model = GPT(**{name: getattr(args, name) for name in names}).cuda().bfloat16()
    save(model, "final_model.int8.ptz")
    with open("final_model.int8.ptz", "rb") as file:
        content = torch.load(io.BytesIO(zlib.decompress(file.read())), map_location="cpu")
    model.load_state_dict(dequantize_state_dict_int8(content), strict=True)


if __name__ == "__main__":
    main()
