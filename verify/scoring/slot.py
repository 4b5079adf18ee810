"""SLOT on context only: before a window is scored, a shift of its hidden states is fitted to what came before."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from codec.errors import UsageError
from verify.scoring.ranks import Ranks
from verify.scoring.scorer import Scored
from verify.scoring.sliding import digest
from verify.scoring.token_stream import Adapt, Stream
from verify.scoring.windows import plan

EPS, WEIGHT_DECAY = 1e-5, 1e-8


class Shifting(Protocol):
    """What `ContextSlot` scores by: a model and what shifts its hidden states, here (`Shifts`) or elsewhere."""

    @property
    def model(self) -> Any:
        """For `Stream.scores`."""

    @property
    def adapt(self) -> Adapt | None:
        """For `Stream.scores`; None where the model sees to it by itself."""

    def digest(self) -> str:
        """Names the state behind the last scores: the weights and, where there was context, the shifts."""


class Shifts:
    """Fits the shifts of a batch by a model of this process, whose weights stay as they are."""

    def __init__(self, model: Any, *, steps: int, lr: float) -> None:
        self.model = model
        self._steps, self._lr = steps, lr
        self._weights = ""
        self._last: Tensor | None = None  # windows without context come first in a run: it needs no clearing

    def adapt(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """See `fit_shift`."""
        self._last = fit_shift(self.model.head, hidden, targets, steps=self._steps, lr=self._lr)
        return self._last

    def digest(self) -> str:
        """See `Shifting`."""
        self._weights = self._weights or digest(self.model)
        if self._last is None:
            return self._weights
        return hashlib.sha256(self._weights.encode() + self._last.cpu().numpy().tobytes()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSlot:
    """Every window starts with a shift of 0 and fits it by AdamW to the targets before its first scored one.

    The shift (D,) is added to the hidden states in front of the output matrix.  Shift, optimizer state and loss are
    the window's own: windows of a batch overlap, so a shift shared between them would be fitted to targets that some
    of them are about to score.  Windows without context, at the start of the text, have a shift of 0.

    model: offers `.hidden(ids)`, int64 (B, T) -> (B, T, D), and `.head(hidden)` -> (B, T, V), which treats every
    position by itself; its weights stay as they are.  steps, lr: of AdamW, with the record's eps and decay.  shifts:
    makes what fits from model, steps and lr; another one for a model of another process.

    Source: pull request 1176 for the shift and its optimizer, without its leak (see benchmarks.published_procedures).
    """

    model: Any
    vocab_size: int
    length: int
    stride: int
    steps: int = 5
    lr: float = 0.003
    shifts: Callable[..., Shifting] = Shifts
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
        shifts = self.shifts(self.model, steps=self.steps, lr=self.lr)
        for scored in stream.scores(
            shifts.model, windows, batch=batch, ranks=Ranks.of(ranks), adapt=shifts.adapt, keep_log_probs=self.evidence
        ):
            yield replace(scored, digest=shifts.digest() if self.evidence else "")


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
