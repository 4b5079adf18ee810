"""Checkpoints as the seed systems wrote them: their key layouts, and the model that their shapes tell.

Everything here is numpy: arrays come from a file and go into a file.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError
from trainer.model.config import GPTConfig
from trainer.model.gpt import GPT
from trainer.presets.catalog import PRESETS

NOTHING: Mapping[str, Any] = {}
Stored = TypeVar("Stored", bound=np.ndarray | QuantizedTensor)
# 1176 keeps the block matrices of all layers in four banks; some stack two kinds, one after the other.
BANKS = {
    "qo_bank": ("attn.c_q", "attn.proj"),
    "kv_bank": ("attn.c_k", "attn.c_v"),
    "mlp_up_bank": ("mlp.fc",),
    "mlp_down_bank": ("mlp.proj",),
}
EMBEDDINGS = ("tok_emb.weight", "bigram.embed.weight", "ve_shared.embed.weight", "logit_temp")
# Presets whose model a state can be, by the tensors that only some of them have; of those that fit the nearest decides
# what no tensor shows.  At equal distance the earlier one does.
FAMILIES = ("pr1716", "pr1493", "pr1176", "pr549", "pr339", "pr162", "pr198", "baseline")
FIRST = "blocks.0"
NEEDED = (
    "tok_emb.weight",
    "skip_weights",
    f"{FIRST}.attn.q_gain",
    f"{FIRST}.attn.c_k.weight",
    f"{FIRST}.mlp.fc.weight",
)
# A switch that a tensor shows, and the tensor: present = on.
SHOWN = {
    "bigram_buckets": "bigram.embed.weight",
    "value_embed_dim": "ve_shared.embed.weight",
    "value_residual": "blocks.1.attn.vr_lambda",
    "attn_gate": "blocks.0.attn.attn_gate_proj.weight",
    "gated_skips": "skip_gates",
    "backout": "backout_lambda",
    "logit_temperature": "logit_temp",
}
HIDDEN = (  # what no tensor shows, in the order of a warning
    *("activation", "xsa_layers", "rope_dims", "rope_base", "rope_train_len", "ln_scale", "parallel_layers"),
    *("loops", "loop_first", "loop_last", "value_embed_layers", "bigram_hash", "smear_bos_mask", "softcap", "seq_len"),
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


def read_config(shapes: Mapping[str, tuple[int, ...]], *, stated: Mapping[str, Any] = NOTHING) -> GPTConfig:
    """The model of a state without banks: sizes and switches that its names and shapes show, the others as `stated`.

    What neither shows nor is stated is guessed to be as in the nearest preset: `guesses` names it.

    shapes: name -> shape.  stated: fields of GPTConfig.

    Raises: InputError when the names are not of the toolkit's model, when what is stated contradicts them, or when
    names and shapes are not those of the model found.
    """
    missing = [name for name in NEEDED if name not in shapes]
    if missing:
        raise InputError(
            f"its {len(shapes)} tensors are not those of a known system, no `{missing[0]}`",
            hint=f"known: {', '.join(FAMILIES)}; for a model of another kind pass --script FILE",
        )
    shown = _shown(shapes)
    if not shown["bigram_buckets"]:
        shown["bigram_dim"] = stated.get("bigram_dim", shown["bigram_dim"])  # of no table: no shape contradicts it
    for name, value in shown.items():
        if name in stated and stated[name] != value:
            raise InputError(
                f"is of a model with {name} {value}, {stated[name]} is stated", hint="state that of this checkpoint"
            )
    model = _nearest(shown, shapes["skip_weights"][0])
    guessed = {
        "xsa_layers": min(model.xsa_layers, shown["layers"]),
        "parallel_layers": min(model.parallel_layers, shown["layers"]),
        "rope_dims": min(model.rope_dims, shown["dim"] // shown["heads"]),
        "value_embed_layers": _count(shapes, "ve_layer_scales."),
    }
    if shapes["skip_weights"][0] == shown["layers"] // 2:
        guessed |= {"loops": 0, "loop_first": 0, "loop_last": 0}
    values = {**model.to_dict(), **guessed, **stated, **shown}
    config = GPTConfig.from_dict({name: [*each] if isinstance(each, tuple) else each for name, each in values.items()})
    check_shapes(config, shapes)
    return config


def guesses(config: GPTConfig, stated: Collection[str] = ()) -> dict[str, Any]:
    """What `read_config` had to guess: fields that neither a tensor shows nor anybody stated, with their values."""
    values = config.to_dict()
    idle = {
        "bigram_hash": not config.bigram_buckets,
        "smear_bos_mask": not config.smear,
        "value_embed_layers": not config.value_embed_layers,
        "loops": not config.loops,
        "loop_first": not config.loops,
        "loop_last": not config.loops,
    }
    return {name: values[name] for name in HIDDEN if name not in stated and not idle.get(name)}


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Fields of GPTConfig that tensors show."""
    (vocab, dim), heads = shapes["tok_emb.weight"], shapes["blocks.0.attn.q_gain"][0]
    shown: dict[str, Any] = {
        "vocab_size": vocab,
        "layers": _layers(shapes),
        "dim": dim,
        "heads": heads,
        "kv_heads": max(shapes["blocks.0.attn.c_k.weight"][0] * heads // dim, 1),
        "mlp_hidden": shapes["blocks.0.mlp.fc.weight"][0],
        "smear": "vector" if "smear.gate" in shapes else "gated" if "smear_lambda" in shapes else "",
        **{field: name in shapes for field, name in SHOWN.items()},
    }
    shown["bigram_buckets"], shown["bigram_dim"] = shapes.get("bigram.embed.weight", (0, 128))  # its default
    shown["value_embed_dim"] = shapes["ve_shared.embed.weight"][1] if shown["value_embed_dim"] else 0
    return shown


def _nearest(shown: Mapping[str, Any], skips: int) -> GPTConfig:
    """The preset's model that shares most of what is shown: first whether parts are there, then their sizes."""

    def distance(model: GPTConfig) -> tuple[int, int]:
        fields = {**model.to_dict(), "skips": len(model.order(looping=True)) // 2}
        found = {**shown, "skips": skips}
        parts = sum(bool(fields[name]) != bool(found[name]) for name in (*SHOWN, "smear"))
        return parts, sum(fields[name] != value for name, value in found.items())

    return min((PRESETS[name].model for name in FAMILIES), key=distance)


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


def _layers(names: Iterable[str]) -> int:
    return len({name.split(".")[1] for name in names if name.startswith("blocks.")})


def _count(names: Iterable[str], prefix: str) -> int:
    return sum(name.startswith(prefix) for name in names)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {'x'.join(map(str, shape)) or 'of a scalar'}"
