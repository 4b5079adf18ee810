"""Scripts shaped like the challenge's, of any size: one flat file of the toolkit's own modules.

They hold what the records' scripts hold: settings from environment variables, Triton kernels (the decorator stands in
for Triton's and reads the source as it does), an operator with annotations, dataclasses, nested f-strings, `vars(x)`.
Comments and docstrings are taken out, because the records have few and the field's recipe would pay for them.
"""

import ast
import base64
import lzma
from functools import cache

import python_minifier

from tests.conftest import ROOT

MODULES = [  # in an order in which each finds what it uses
    "codec/errors", "trainer/compute/ranks", "trainer/model/config", "trainer/model/gpt", "trainer/model/init",
    "trainer/optim/muon", "trainer/optim/schedule", "trainer/optim/averaging", "codec/decoder", "codec/entropy/rans",
    "verify/scoring/scorer", "verify/scoring/score", "verify/scoring/windows", "verify/scoring/token_stream",
    "verify/scoring/sliding", "verify/scoring/adaptation", "verify/scoring/ttt", "verify/scoring/slot",
    "verify/scoring/token_bytes", "trainer/data/documents", "codec/entropy/code_length",
    "codec/entropy/histogram_clusters", "codec/entropy/row_prediction", "codec/quantization/gptq",
    "trainer/data/loader", "codec/storage/atomic_files", "codec/storage/checkpoint", "codec/storage/token_shards",
    "trainer/data/dataset", "verify/scoring/ngram_baselines", "codec/entropy/level_tables",
    "codec/entropy/row_classes", "codec/entropy/byte_tables", "codec/storage/decompress",
    "codec/quantization/array_ops", "verify/submission/source_layers", "verify/submission/byte_count",
    "verify/submission/taint",
]  # fmt: skip

HEAD = """\
from __future__ import annotations
import copy, glob, inspect, io, json, math, os, random, subprocess, sys, time, uuid, zlib
from dataclasses import dataclass, field
from pathlib import Path
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
try:
    import triton
    import triton.language as tl
except ImportError:
    class tl:
        constexpr = int
    class triton:
        @staticmethod
        def jit(function):
            source = inspect.getsource(function)
            assert source.startswith("@triton.jit\\ndef ") and ": tl.constexpr" in source.replace(":tl", ": tl"), source
            function.kernel_source = source
            return function
        @staticmethod
        def cdiv(a, b):
            return -(-a // b)
"""

SETTINGS = """\
class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    train_files = os.path.join(data_path, "fineweb_train_*.bin")
    val_files = os.path.join(data_path, "fineweb_val_*.bin")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model")
    run_id = os.environ.get("RUN_ID", str(uuid.UUID(int=7)))
    seed = int(os.environ.get("SEED", 1337))
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    num_layers = int(os.environ.get("NUM_LAYERS", 11))
    num_kv_heads = int(os.environ.get("NUM_KV_HEADS", 4))
    model_dim = int(os.environ.get("MODEL_DIM", 512))
    num_heads = int(os.environ.get("NUM_HEADS", 8))
    mlp_mult = float(os.environ.get("MLP_MULT", 4.0))
    tie_embeddings = bool(int(os.environ.get("TIE_EMBEDDINGS", "1")))
    rope_base = float(os.environ.get("ROPE_BASE", 10000.0))
    logit_softcap = float(os.environ.get("LOGIT_SOFTCAP", 30.0))
    val_batch_size = int(os.environ.get("VAL_BATCH_SIZE", 524_288))
    val_loss_every = int(os.environ.get("VAL_LOSS_EVERY", 4000))
    train_log_every = int(os.environ.get("TRAIN_LOG_EVERY", 500))
    iterations = int(os.environ.get("ITERATIONS", 20000))
    warmdown_frac = float(os.environ.get("WARMDOWN_FRAC", 0.72))
    warmup_steps = int(os.environ.get("WARMUP_STEPS", 20))
    train_batch_tokens = int(os.environ.get("TRAIN_BATCH_TOKENS", 786_432))
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 2048))
    eval_stride = int(os.environ.get("EVAL_STRIDE", 64))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
    embed_lr = float(os.environ.get("EMBED_LR", 0.6))
    head_lr = float(os.environ.get("HEAD_LR", 0.008))
    tied_embed_lr = float(os.environ.get("TIED_EMBED_LR", 0.03))
    matrix_lr = float(os.environ.get("MATRIX_LR", 0.022))
    scalar_lr = float(os.environ.get("SCALAR_LR", 0.02))
    muon_momentum = float(os.environ.get("MUON_MOMENTUM", 0.99))
    muon_backend_steps = int(os.environ.get("MUON_BACKEND_STEPS", 5))
    muon_momentum_warmup_start = float(os.environ.get("MUON_MOMENTUM_WARMUP_START", 0.92))
    muon_momentum_warmup_steps = int(os.environ.get("MUON_MOMENTUM_WARMUP_STEPS", 1500))
    beta1 = float(os.environ.get("BETA1", 0.9))
    beta2 = float(os.environ.get("BETA2", 0.95))
    grad_clip_norm = float(os.environ.get("GRAD_CLIP_NORM", 0.3))
    ema_decay = float(os.environ.get("EMA_DECAY", 0.9965))
    ttt_enabled = bool(int(os.environ.get("TTT_ENABLED", "0")))
    ttt_lr = float(os.environ.get("TTT_LR", 0.005))
    ttt_epochs = int(os.environ.get("TTT_EPOCHS", 3))
    ttt_chunk_tokens = int(os.environ.get("TTT_CHUNK_TOKENS", 32768))
    distributed = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    rank = int(os.environ.get("RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    is_main_process = rank == 0
    logfile = f"logs/{run_id}.txt"
    model_path = "final_model.pt"
    quantized_model_path = "final_model.int6.ptz"

CONTROL_TENSOR_NAME_PATTERNS = tuple(
    pattern
    for pattern in os.environ.get("CONTROL_TENSOR_NAME_PATTERNS", "attn_scale,mlp_scale,resid_mix,q_gain").split(",")
    if pattern
)
BLOCK_ROWS = 64

@triton.jit
def fused_cross_entropy_kernel(
    logits_ptr, targets_ptr, losses_ptr, vocab_size, softcap, BLOCK_SIZE: tl.constexpr, num_stages: tl.constexpr
):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK_SIZE)
    logits = tl.load(logits_ptr + row * vocab_size + columns, mask=columns < vocab_size, other=-float("inf"))
    capped = 2.0 * softcap * tl.sigmoid(logits / softcap) - softcap
    maximum = tl.max(capped, axis=0)
    total = tl.sum(tl.exp(capped - maximum), axis=0)
    target = tl.load(targets_ptr + row)
    picked = tl.sum(tl.where(columns == target, capped, 0.0), axis=0)
    tl.store(losses_ptr + row, maximum + tl.log(total) - picked)

@triton.jit
def squared_relu_kernel(input_ptr, output_ptr, count, BLOCK_SIZE: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    inside = offsets < count
    values = tl.load(input_ptr + offsets, mask=inside)
    positive = tl.maximum(values, 0.0)
    tl.store(output_ptr + offsets, positive * positive, mask=inside)

@torch.library.custom_op("fieldscript::capped_loss", mutates_args=())
def capped_loss(logits: torch.Tensor, targets: torch.Tensor, softcap: float) -> torch.Tensor:
    capped = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(capped.float(), targets, reduction="none")

@capped_loss.register_fake
def _(logits: torch.Tensor, targets: torch.Tensor, softcap: float) -> torch.Tensor:
    return logits.new_empty(logits.shape[0], dtype=torch.float32)
"""

TAIL = """\
@dataclass
class RunSummary:
    seed: int
    loss: float = math.inf
    notes: list[str] = field(default_factory=list)

    def line(self, width: int = 9) -> str:
        pairs = {"seed": self.seed, "loss": self.loss}
        return f"{'summary'} {', '.join(f'{key}:{value}' for key, value in pairs.items())} {self.loss!r:>{width}}"

def describe(settings) -> str:
    shown = {name: value for name, value in vars(settings).items() if not name.startswith("_")}
    return " ".join(f"{name}={value}" for name, value in sorted(shown.items()) if not callable(value))

def fail_here(message):
    raise RuntimeError(message)  # the line that fails

def check():
    summary = RunSummary(Hyperparameters.seed, 1.25)
    print(summary.line())
    print(describe(Hyperparameters))
    print(inspect.getsource(RunSummary).splitlines()[0])
    if os.environ.get("FAIL_ON_PURPOSE"):
        fail_here("on purpose")

if __name__ == "__main__":
    check()
"""


@cache
def field_script(size: int) -> str:
    """A script of at least `size` bytes and at most 15 % more."""
    parts, total = [], len(HEAD) + len(SETTINGS) + len(TAIL)
    for module in MODULES:
        if total >= size:
            break
        parts.append(_flat((ROOT / f"{module}.py").read_text()))
        total += len(parts[-1])
    assert size <= total < 1.15 * size, (size, total)
    return "\n".join([HEAD, SETTINGS, *parts, TAIL])


def _flat(text: str) -> str:
    """A module without imports of the toolkit, comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_left_out(each)] or [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _is_left_out(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return str(node.module).partition(".")[0] in ("codec", "trainer", "verify", "__future__")
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def field_recipe(text: str) -> bytes:
    """What the records' authors make of a script: python-minifier as it comes, xz, base 85, the shortest loader."""
    packed = lzma.compress(python_minifier.minify(text).encode(), preset=9 | lzma.PRESET_EXTREME)
    literal = base64.b85encode(packed)
    return b'import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("' + literal + b'")))\n'
