"""Models to score: a small causal one, and the seed systems' shrunk ones with the numbers their scripts gave."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.trainer.shrunk import golden_model
from trainer.model.gpt import GPT

VOCAB = 20


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.mix = nn.Linear(width, width, bias=False)

    def forward(self, x, bank):
        return x + self.scale * torch.tanh(self.mix(x.cumsum(1) / 3) @ bank)


class Toy(nn.Module):
    """Causal: every position depends on all tokens since the window's start, so that context errors show.

    Three blocks; half of their matrices lie in a bank, two of them per block.
    """

    def __init__(self, dtype: torch.dtype = torch.float64, *, seed: int = 0, width: int = 8) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.square_bank = nn.Parameter(torch.empty(6, width, width))
        self.output = nn.Linear(width, VOCAB, bias=False)
        self.register_buffer("temperature", torch.ones(()))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=generator).mul_(0.5)
        self.to(dtype)

    def hidden(self, ids):
        x = self.embed(ids)
        for number, block in enumerate(self.blocks):
            x = block(x, self.square_bank[number] + self.square_bank[number + 3])
        return x

    def head(self, hidden):
        return self.output(hidden) * self.temperature

    def logits(self, ids):
        return self.head(self.hidden(ids))


def stream(count: int, *, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(tokens uint16 (count + 1,), bytes of each target)."""
    rng = np.random.default_rng(count if seed is None else seed)
    return rng.integers(0, VOCAB, count + 1).astype(np.uint16), rng.integers(1, 5, count)


def golden(shared: Path, pull_request: str) -> dict[str, np.ndarray]:
    """What the original script's evaluation gave."""
    return np.load(shared / "data/golden" / pull_request / "eval.npz")


def shrunk(shared: Path, pull_request: str, *, looping: bool = True) -> GPT:
    """The model of a golden folder with its own weights."""
    model = golden_model(shared, int(pull_request))
    model.looping = looping
    return model


def nats_of(scorer, tokens: np.ndarray, *, batch: int = 4, ranks: int = 1) -> np.ndarray:
    """float64 (n,): the one score of every target; fails unless each came once, in order."""
    scored = list(scorer.run(tokens, batch=batch, ranks=ranks))
    positions = np.concatenate([part.positions for part in scored])
    assert positions.tolist() == list(range(len(tokens) - 1))
    return np.concatenate([part.nats for part in scored])
