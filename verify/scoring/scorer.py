"""What every scorer answers, ours or foreign, and all that the audit knows of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One batch of scores that can no longer change, in the order in which they were fixed.

    positions: int64 (k,); position p has the target tokens[p + 1].  nats: float64 (k,), the negative log likelihood
    of each target.  log_probs: float (k, V), natural logarithms, or None when the scorer keeps them to itself.
    digest: names the state (weights, buffers, caches) that gave these scores; "" when unknown.  windows: how many
    were read for them, 0 when unknown.
    """

    positions: np.ndarray
    nats: np.ndarray
    log_probs: np.ndarray | None = None
    digest: str = ""
    windows: int = 0


class Scorer(Protocol):
    """Gives every target one negative log likelihood.

    A run starts from the artifact's state, whatever ran before.  batch: windows at a time.  ranks: over how many
    processes the windows are split (simulated one after the other).  Neither may change a score.
    """

    @property
    def name(self) -> str:
        """For tables and findings."""

    @property
    def vocab_size(self) -> int:
        """Tokens are integers below this."""

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int = 1) -> Iterator[Scored]:
        """tokens: integers (n + 1,).  Every position 0 .. n - 1 is to come once."""
