"""Checkpoints as the seed systems wrote them: their key layouts, and the model that their shapes tell.

Everything here is numpy: arrays come from a file and go into a file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError
from trainer.model.config import GPTConfig
from trainer.model.gpt import GPT
from trainer.presets.catalog import PRESETS

Stored = TypeVar("Stored", bound=np.ndarray | QuantizedTensor)
# 1176 keeps the block matrices of all layers in four banks; some stack two kinds, one after the other.
BANKS = {
    "qo_bank": ("attn.c_q", "attn.proj"),
    "kv_bank": ("attn.c_k", "attn.c_v"),
    "mlp_up_bank": ("mlp.fc",),
    "mlp_down_bank": ("mlp.proj",),
}
EMBEDDINGS = ("tok_emb.weight", "bigram.embed.weight", "ve_shared.embed.weight", "logit_temp")
# The first key present decides; shapes cannot show switches such as the activation, so they are the family's.
FAMILIES = (
    ("smear_lambda", "pr1716"),
    ("ve_shared.scale", "pr1176"),
    ("backout_lambda", "pr339"),
    ("bigram.scale", "pr162"),
    ("skip_weights", "baseline"),
)


def split_banks(state: Mapping[str, Stored]) -> dict[str, Stored]:
    """One matrix per layer and kind, under the names of the other systems; states without banks stay as they are.

    Raises: InputError for a bank that does not divide into layers, or is quantized as a whole.
    """
    unbanked: dict[str, Stored] = {}
    for name, array in state.items():
        if name not in BANKS:
            unbanked[name] = array
            continue
        kinds = BANKS[name]
        if isinstance(array, QuantizedTensor):
            raise InputError("is quantized as a whole, its matrices cannot be told apart", where=name)
        if array.ndim != 3 or len(array) % len(kinds):
            raise InputError(f"has shape {array.shape}, need {len(kinds)} x layers matrices", where=name)
        layers = len(array) // len(kinds)
        for place, matrix in enumerate(array):
            unbanked[f"blocks.{place % layers}.{kinds[place // layers]}.weight"] = matrix
    return unbanked


def join_banks(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `split_banks`.

    Raises: InputError when a matrix is missing.
    """
    layers = _layers(state)
    banked = dict(state)
    for bank, kinds in BANKS.items():
        names = [f"blocks.{layer}.{kind}.weight" for kind in kinds for layer in range(layers)]
        missing = [name for name in names if name not in state]
        if missing:
            raise InputError(f"is missing, the bank `{bank}` needs it", where=missing[0])
        banked[bank] = np.stack([banked.pop(name) for name in names])
    return banked


def read_config(shapes: Mapping[str, tuple[int, ...]], *, seq_len: int | None = None) -> GPTConfig:
    """The model of a state without banks, by its names and shapes: sizes as found, switches of the nearest seed.

    shapes: name -> shape.  seq_len: the length it was trained with, which no shape shows; the seed's if None.

    Raises: InputError when no seed system has such names, or names and shapes are not those of the model found.
    """
    family = next((preset for key, preset in FAMILIES if key in shapes), None)
    needed = ("tok_emb.weight", "blocks.0.attn.q_gain", "blocks.0.attn.c_k.weight", "blocks.0.mlp.fc.weight")
    missing = [name for name in needed if name not in shapes]
    if family is None or missing:
        raise InputError(
            f"its {len(shapes)} tensors are not those of a known system" + (f", no `{missing[0]}`" if missing else ""),
            hint=f"known: {', '.join(preset for _, preset in FAMILIES)}; else store the model config in its "
            "metadata, or pass --script FILE",
        )
    model = PRESETS[family].model
    layers, (vocab, dim), heads = _layers(shapes), shapes["tok_emb.weight"], shapes["blocks.0.attn.q_gain"][0]
    sizes: dict[str, Any] = {
        "vocab_size": vocab,
        "layers": layers,
        "dim": dim,
        "heads": heads,
        "kv_heads": max(shapes["blocks.0.attn.c_k.weight"][0] * heads // dim, 1),
        "mlp_hidden": shapes["blocks.0.mlp.fc.weight"][0],
        "xsa_layers": min(model.xsa_layers, layers),
        "seq_len": seq_len or model.seq_len,
    }
    if "bigram.embed.weight" in shapes:
        sizes["bigram_buckets"], sizes["bigram_dim"] = shapes["bigram.embed.weight"]
    if "ve_shared.embed.weight" in shapes:
        sizes["value_embed_dim"] = shapes["ve_shared.embed.weight"][1]
        sizes["value_embed_layers"] = sum(name.startswith("ve_layer_scales.") for name in shapes)
    config = replace(model, **sizes)
    check_shapes(config, shapes)
    return config


def check_shapes(config: GPTConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Names and shapes are those of the model that `config` describes.

    Raises: InputError naming the first that differs.
    """
    import torch

    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in GPT(config).state_dict().items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            raise InputError(
                f"the file has {_shape(shapes.get(name))}, the model {_shape(wanted.get(name))}",
                where=name,
                hint="give the model config in the checkpoint's metadata",
            )


def describe_config(config: GPTConfig) -> str:
    """The sizes, and the switches that differ from GPTConfig's defaults, for a note."""
    values = config.to_dict()
    return ", ".join(
        f"{field.name} {values[field.name]}" for field in fields(config) if values[field.name] != field.default
    )


def _layers(names: Iterable[str]) -> int:
    return len({name.split(".")[1] for name in names if name.startswith("blocks.")})


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {'x'.join(map(str, shape)) or 'of a scalar'}"
