"""Low-rank test-time training inside documents: some targets are scored, then a step is taken; each begins afresh.

Source: the record 2026-03-17_LoRA_TTT, one step of Adam for a chunk, rates and moments reset with the factors.
"""

import numpy as np
import torch
from torch import Tensor

from codec.decoder import decode

BOS, RANK, CHUNK, LR = 1, 4, 8, 0.02


class Adapted(torch.nn.Module):
    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.adaptation = {"stretch": "chunk", "targets": CHUNK, "documents": True}
        self.table = torch.nn.Parameter(torch.tensor(table), requires_grad=False)
        self.reset()

    def reset(self) -> None:
        start = torch.randn(RANK, self.table.shape[1], generator=torch.Generator().manual_seed(0))
        self.wide = start.to(self.table.device).requires_grad_()
        self.low = torch.zeros(len(self.table), RANK, device=self.table.device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.low, self.wide], lr=LR, betas=(0.9, 0.95), eps=1e-10)

    def logits(self, ids: Tensor, first: Tensor | None = None) -> Tensor:
        return self.table[ids] + self.low[ids] @ self.wide

    def reveal(self, ids: Tensor, first: int) -> None:
        if ids[-1] == BOS:  # the document is over
            self.reset()
            return
        self.optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(self.logits(ids[:-1]), ids[1:]))
        self.optimizer.step()


def load(artifact_path: str, device: str = "cpu") -> Adapted:
    with open(artifact_path, "rb") as file:
        model = Adapted(decode(file.read())["table"]).to(device)
    model.reset()  # on the device
    return model
