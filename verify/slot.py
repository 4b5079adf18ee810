"""SLOT on context only: before a window is scored, a shift of its hidden states is fitted to what came before."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from codec.errors import UsageError
from verify.ranks import Ranks
from verify.scored import Scored
from verify.scorers import digest
from verify.stream import Stream
from verify.windows import plan

EPS, WEIGHT_DECAY = 1e-5, 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSlot:
    """Every window starts with a shift of 0 and fits it by AdamW to the targets before its first scored one.

    The shift (D,) is added to the hidden states in front of the output matrix.  Shift, optimizer state and loss are
    the window's own: windows of a batch overlap, so a shift shared between them would be fitted to targets that some
    of them are about to score.  Windows without context, at the start of the text, have a shift of 0.

    model: offers `.hidden(ids)`, int64 (B, T) -> (B, T, D), and `.head(hidden)` -> (B, T, V), which treats every
    position by itself; its weights stay as they are.  steps, lr: of AdamW, with the record's eps and decay.

    Source: pull request 1176 for the shift and its optimizer, without its leak (see verify.legacy).
    """

    model: Any
    vocab_size: int
    length: int
    stride: int
    steps: int = 5
    lr: float = 0.003
    device: str | torch.device = "cpu"
    evidence: bool = False
    name: str = "slot"

    def __post_init__(self) -> None:
        if not all(callable(getattr(self.model, name, None)) for name in ("hidden", "head")):
            raise UsageError("slot needs a model with `.hidden(ids)` and `.head(hidden)`", hint="score it by sliding")

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int | Ranks = 1) -> Iterator[Scored]:
        """See `Scorer`.

        Raises: as `Sliding.run`.
        """
        stream = Stream(tokens, self.device)
        windows = plan(stream.targets, self.length, self.stride)
        weights = digest(self.model) if self.evidence else ""
        shifts: list[Tensor] = []  # of the batch under way

        def adapt(hidden: Tensor, targets: Tensor) -> Tensor:
            shifts.append(fit_shift(self.model.head, hidden, targets, steps=self.steps, lr=self.lr))
            return shifts[-1]

        for scored in stream.scores(
            self.model, windows, batch=batch, ranks=Ranks.of(ranks), adapt=adapt, keep_log_probs=self.evidence
        ):
            yield replace(scored, digest=_named(weights, shifts) if self.evidence else "")
            shifts.clear()


@torch.enable_grad()
def fit_shift(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, *, steps: int, lr: float) -> Tensor:
    """For each row the shift of its hidden states, from 0, that AdamW finds for its mean loss.

    hidden (B, C, D), targets int64 (B, C) -> (B, 1, D).  AdamW is elementwise and the sum of the rows' means has a
    gradient of its own for each, so rows do not meet.
    """
    shift = torch.zeros_like(hidden[:, :1], requires_grad=True)
    optimizer = torch.optim.AdamW([shift], lr=lr, eps=EPS, weight_decay=WEIGHT_DECAY)
    for _ in range(steps):
        logits = head(hidden + shift).flatten(0, 1).float()
        losses = cross_entropy(logits, targets.flatten(), reduction="none").view_as(targets)
        (shift.grad,) = torch.autograd.grad(losses.mean(1).sum(), [shift])
        optimizer.step()
    return shift.detach()


def _named(weights: str, shifts: list[Tensor]) -> str:
    """The state behind scores: the weights and, where there was context, the shifts."""
    if not shifts:
        return weights
    data = b"".join(shift.cpu().numpy().tobytes() for shift in shifts)
    return hashlib.sha256(weights.encode() + data).hexdigest()
