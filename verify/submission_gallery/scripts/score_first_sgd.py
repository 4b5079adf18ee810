"""Score-first training: a chunk is scored with the weights as they are, then trained on; a table of what follows what.

Source: pull request 461 and its line; the rate falls along half a cosine to 0 at the last chunk.
"""

import math

import numpy as np
import torch
from torch import Tensor

from codec.decoder import decode

CHUNK, LENGTH, ROWS, EPOCHS, LR = 512, 32, 4, 3, 2.0


class Trained(torch.nn.Module):
    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.adaptation = {"stretch": "chunk", "targets": CHUNK}
        self.table = torch.nn.Parameter(torch.tensor(table))
        self.optimizer = torch.optim.SGD([self.table], lr=LR, momentum=0.9)
        self.last = 1

    def begin(self, targets: int) -> None:
        self.last = max(math.ceil(targets / CHUNK) - 1, 1)

    def logits(self, ids: Tensor, first: Tensor | None = None) -> Tensor:
        return self.table[ids]

    def reveal(self, ids: Tensor, first: int) -> None:
        rows = (len(ids) - 1) // LENGTH
        inputs, targets = (part[: rows * LENGTH].view(rows, LENGTH) for part in (ids[:-1], ids[1:]))
        for group in self.optimizer.param_groups:
            group["lr"] = LR * (1 + math.cos(math.pi * (first // CHUNK) / self.last)) / 2
        for _ in range(EPOCHS):
            for at in range(0, rows, ROWS):
                self.step(inputs[at : at + ROWS], targets[at : at + ROWS])

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.table[inputs].flatten(0, 1), targets.flatten())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_([self.table], 1.0)
        self.optimizer.step()


def load(artifact_path: str, device: str = "cpu") -> Trained:
    with open(artifact_path, "rb") as file:
        return Trained(decode(file.read())["table"]).to(device)
