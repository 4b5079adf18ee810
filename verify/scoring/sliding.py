"""Sliding-window scores, and the sum of any scorer's answers."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from verify.scoring.ranks import Ranks
from verify.scoring.scorer import Scored
from verify.scoring.token_stream import Stream
from verify.scoring.windows import plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliding:
    """Each target once, with at least length - stride tokens of context (fewer at the start), by fixed weights.

    model: offers `.logits(ids)`, int64 (B, T) -> (B, T, V), any float dtype; with `.hidden(ids)` and `.head(hidden)`
    too it is faster.  Windows of a batch have equal length, so nothing is padded.  evidence: give log_probs and
    digests as well, for the audit.

    Source: sliding evaluation of the challenge; softmax in float32.
    """

    model: Any
    vocab_size: int
    length: int
    stride: int
    device: str | torch.device = "cpu"
    evidence: bool = False
    name: str = "sliding"

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int | Ranks = 1) -> Iterator[Scored]:
        """See `Scorer`.

        Raises: UsageError for a bad length, stride, batch or ranks; InputError for logits of a wrong shape.
        """
        stream = Stream(tokens, self.device)
        windows = plan(stream.targets, self.length, self.stride)
        named = digest(self.model) if self.evidence else ""
        for scored in stream.scores(
            self.model, windows, batch=batch, ranks=Ranks.of(ranks), keep_log_probs=self.evidence
        ):
            yield replace(scored, digest=named)


def digest(model: Any, *more: torch.Tensor) -> str:
    """sha256 of a module's parameters and buffers and of more tensors; "" for what is no module."""
    if not isinstance(model, torch.nn.Module):
        return ""
    hasher = hashlib.sha256()
    for tensor in (*model.parameters(), *model.buffers(), *more):
        hasher.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()
