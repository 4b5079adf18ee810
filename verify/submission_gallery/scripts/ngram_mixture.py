"""A normalized n-gram mixture: the model with the shares of what followed the last two tokens so far, for every id.

The logits are logarithms of probabilities, so that the softmax behind them changes nothing.
"""

from collections import Counter, defaultdict

import numpy as np
import torch
from torch import Tensor

from codec.decoder import decode

WEIGHT = 0.3
Pair = tuple[int, int]


class Mixed(torch.nn.Module):
    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.adaptation = {"stretch": "window"}
        self.table = torch.nn.Parameter(torch.tensor(table), requires_grad=False)
        self.followed: defaultdict[Pair, Counter[int]] = defaultdict(Counter)
        self.before, self.known = -1, 1  # the token before the last that is known, and how many are

    def logits(self, ids: Tensor, first: Tensor | None = None) -> Tensor:
        logits = self.table[ids].log_softmax(-1)
        starts = first.tolist() if first is not None else []
        for start, row, out in zip(starts, ids.tolist(), logits, strict=False):
            inside: defaultdict[Pair, Counter[int]] = defaultdict(
                Counter
            )  # what the row itself shows, up to a position
            for at in range(max(self.known - 1 - start, 0), len(row)):
                pair = (row[at - 1] if at else -1, row[at])
                often = self.followed.get(pair, Counter()) + inside[pair]
                if often:
                    counts = torch.zeros_like(out[at])
                    counts[list(often)] = torch.tensor(list(often.values()), dtype=counts.dtype, device=counts.device)
                    out[at] = ((1 - WEIGHT) * out[at].exp() + WEIGHT * counts / counts.sum()).log()
                if at + 1 < len(row):
                    inside[pair][row[at + 1]] += 1
        return logits

    def reveal(self, ids: Tensor, first: int) -> None:
        tokens = ids.tolist()
        for pair, following in zip(zip([self.before, *tokens], tokens, strict=False), tokens[1:], strict=False):
            self.followed[pair][following] += 1
        self.before, self.known = tokens[-2], first + len(tokens)


def load(artifact_path: str, device: str = "cpu") -> Mixed:
    with open(artifact_path, "rb") as file:
        return Mixed(decode(file.read())["table"]).to(device)
