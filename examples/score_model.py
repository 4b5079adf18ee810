"""Score a model of your own in bits per byte: sliding windows, every target once, bytes by the tokenizer itself.

python examples/score_model.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainer import build_dataset
from verify import HeldOut, Sliding, total

WINDOW, STRIDE = 64, 16
DOCUMENTS = [
    f"The {n % 7}th wizard of town {n % 13} counted {n} doves, {n + 1} owls and no ravens." for n in range(600)
]


class Bigrams(nn.Module):
    """All that a scorer asks of a model: `logits`, ids int64 (windows, tokens) -> float (..., vocabulary)."""

    def __init__(self, counts: np.ndarray) -> None:
        super().__init__()
        smooth = torch.from_numpy(counts + 0.01)
        self.log_chances = nn.Parameter((smooth / smooth.sum(1, keepdim=True)).log().float())

    def logits(self, ids: Tensor) -> Tensor:
        return self.log_chances[ids]


def main(folder: Path) -> None:
    summary = build_dataset(DOCUMENTS, folder, vocab_size=320, val_fraction=0.1)
    heldout, train = (
        HeldOut.read([folder / f"text_{part}_000000.bin"], folder / "tokenizer.model") for part in ("val", "train")
    )
    counts = np.zeros((summary.vocab_size, summary.vocab_size))
    np.add.at(counts, (train.tokens[:-1], train.tokens[1:]), 1)
    for name, table in (("uniform", np.zeros_like(counts)), ("bigrams", counts)):
        scorer = Sliding(model=Bigrams(table), vocab_size=summary.vocab_size, length=WINDOW, stride=STRIDE)
        score = total(scorer, heldout.tokens, heldout.token_bytes, batch=16)
        print(f"{name}: {score.tokens:,} targets, {score.bytes:,} bytes, {score.loss:.4f} nats, {score.bpb:.4f} bpb")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
