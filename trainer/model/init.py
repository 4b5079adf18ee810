"""Initial weights of a GPT."""

import math

import torch
from torch import nn

from trainer.model.gpt import GPT

VALUE_TABLE_STD = 0.01


def initialize(model: GPT, seed: int) -> None:
    """Starting weights; vectors and scalars keep what the model's constructor gave them.

    Token table N(0, embed_std^2), value table N(0, 0.01^2), bigram table zero.  Output projections and gates zero,
    other linear layers orthogonal, those with a side below 64 uniform(+-1/sqrt(inputs)).  The bigram projection is
    orthogonal at any width and scaled by bigram_gain_init; it may not be zero, or table and projection would keep
    each other's gradient at zero.
    Source: the code of pull requests 162, 339, 1176 and 1716.
    """
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(model.tok_emb.weight, std=model.config.embed_std, generator=generator)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            _initialize_linear(name, module, generator)
    if model.bigram is not None:
        nn.init.zeros_(model.bigram.embed.weight)
        with torch.no_grad():
            model.bigram.proj.weight.mul_(model.config.bigram_gain_init)
    if model.config.value_embed_layers:
        nn.init.normal_(model.ve_shared.embed.weight, std=VALUE_TABLE_STD, generator=generator)


def _initialize_linear(name: str, layer: nn.Linear, generator: torch.Generator) -> None:
    block_output = name.startswith("blocks.") and name.endswith(".proj")
    if block_output or name.endswith(("attn_gate_proj", "smear_gate")):
        nn.init.zeros_(layer.weight)
    elif name == "bigram.proj" or min(layer.weight.shape) >= 64:
        nn.init.orthogonal_(layer.weight, generator=generator)
    else:
        bound = 1 / math.sqrt(layer.in_features)
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
