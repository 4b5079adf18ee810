"""An n-gram tilt: what followed the last two tokens most often so far gets more, and the rest less.

p(v) is proportional to p_model(v) exp(BETA [v = hint]); the hint comes from what stands before, whatever the target is.
Source: pull request 1514.
"""

from collections import Counter, defaultdict

import numpy as np
import torch
from torch import Tensor

from codec.decoder import decode

BETA, LEAST = 1.5, 2
Pair = tuple[int, int]


class Tilted(torch.nn.Module):
    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.adaptation = {"stretch": "window"}
        self.table = torch.nn.Parameter(torch.tensor(table), requires_grad=False)
        self.followed: defaultdict[Pair, Counter[int]] = defaultdict(Counter)
        self.before, self.known = -1, 1  # the token before the last that is known, and how many are

    def logits(self, ids: Tensor, first: Tensor | None = None) -> Tensor:
        logits = self.table[ids]
        starts = first.tolist() if first is not None else []
        for start, row, out in zip(starts, ids.tolist(), logits, strict=False):
            inside: defaultdict[Pair, Counter[int]] = defaultdict(
                Counter
            )  # what the row itself shows, up to a position
            for at in range(max(self.known - 1 - start, 0), len(row)):
                pair = (row[at - 1] if at else -1, row[at])
                often = self.followed.get(pair, Counter()) + inside[pair]
                hint = min(often, key=lambda v: (-often[v], v), default=-1)
                if often[hint] >= LEAST:
                    out[at, hint] += BETA
                if at + 1 < len(row):
                    inside[pair][row[at + 1]] += 1
        return logits

    def reveal(self, ids: Tensor, first: int) -> None:
        tokens = ids.tolist()
        for pair, following in zip(zip([self.before, *tokens], tokens, strict=False), tokens[1:], strict=False):
            self.followed[pair][following] += 1
        self.before, self.known = tokens[-2], first + len(tokens)


def load(artifact_path: str, device: str = "cpu") -> Tilted:
    with open(artifact_path, "rb") as file:
        return Tilted(decode(file.read())["table"]).to(device)
