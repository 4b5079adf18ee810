"""The presets in sizes for tests: the golden models' own, and small ones that train in a second."""

from dataclasses import replace

import numpy as np
import torch

from trainer.model.gpt import GPT
from trainer.presets.catalog import PRESETS
from trainer.presets.published_layouts import split_banks

SEEDS = (162, 339, 1176, 1716)
GOLDEN = {
    "vocab_size": 128,
    "seq_len": 64,
    "dim": 64,
    "heads": 4,
    "kv_heads": 2,
    "bigram_buckets": 128,
    "bigram_dim": 16,
    "layers": 6,
    "mlp_hidden": 128,
    "rope_dims": 8,
    "xsa_layers": 6,
}
PLAIN = {"layers": 5, "mlp_hidden": 192, "rope_dims": 0, "xsa_layers": 0}
LOOPED = {"loop_first": 2, "loop_last": 3, "parallel_layers": 2, "rope_train_len": 64}
OWN = {162: PLAIN, 339: PLAIN, 1176: {"value_embed_dim": 16}, 1716: LOOPED}
SMALL = {"vocab_size": 64, "seq_len": 16, "dim": 64, "heads": 4, "kv_heads": 2, "mlp_hidden": 96}


def golden_config(seed):
    """The model behind golden/SEED, from the environment settings that its config lists."""
    return replace(PRESETS[f"pr{seed}"].model, **{**GOLDEN, **OWN[seed]})


def golden_arrays(shared, seed, name):
    with np.load(shared / f"data/golden/{seed}/{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays}


def golden_state(shared, seed):
    """Names and arrays as the original has them."""
    arrays = golden_arrays(shared, seed, "model_looped" if seed == 1716 else "model")
    return {key.removeprefix("state/"): array for key, array in arrays.items() if key.startswith("state/")}


def golden_model(shared, seed):
    model = GPT(golden_config(seed))
    state = split_banks(golden_state(shared, seed))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model.eval()


def small_preset(name):
    """Every switch of the preset, at sizes of a test; 4 sequences of 16 tokens per step, no warm-up, no compiler."""
    preset = PRESETS[name]
    model, train = preset.model, preset.train
    layers = 6 if model.loops else 4
    sizes = {
        "layers": layers,
        "bigram_buckets": 32 if model.bigram_buckets else 0,
        "bigram_dim": min(model.bigram_dim, 32),
        "rope_dims": 8 if model.rope_dims else 0,
        "rope_train_len": 8 if model.rope_train_len else 0,
        "value_embed_dim": 16 if model.value_embed_dim else 0,
        "xsa_layers": min(model.xsa_layers, layers),
        "parallel_layers": min(model.parallel_layers, 2),
        "loop_first": 2 if model.loops else 0,
        "loop_last": 3 if model.loops else 0,
    }
    return replace(
        preset,
        model=replace(model, **SMALL, **sizes),
        train=replace(
            train.shortened(20),
            batch_tokens=64,
            seq_len=16,
            micro_batch=2,
            warmup_steps=0,
            compile=False,
            max_seconds=0.0,
            reserve_seconds=0.0,
            swa_every=5 if train.swa_every else 0,
            val_every=0,
            log_every=5,
            save_every=100,
        ),
    )
