"""Scorers: give every target token one negative log likelihood and add them up."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from codec.errors import InputError, UsageError
from verify.windows import Window, plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """nats: summed over `tokens` targets, which stand for `bytes` bytes of UTF-8 text."""

    scorer: str
    nats: float
    tokens: int
    bytes: int
    windows: int
    seconds: float

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bpb(self) -> float:
        """Bits per byte.  Source: the challenge's metric, nats / ln 2 / UTF-8 bytes."""
        return self.nats / math.log(2) / self.bytes

    def to_dict(self) -> dict[str, str | int | float]:
        """The fields with loss and bpb, for JSON."""
        return {**asdict(self), "loss": self.loss, "bpb": self.bpb}


def score_sliding(
    logits: Callable[[torch.Tensor], torch.Tensor],
    tokens: np.ndarray,
    token_bytes: np.ndarray,
    *,
    length: int,
    stride: int,
    batch: int,
    progress: Callable[[int, str], None] | None = None,
) -> Score:
    """Score each target once with at least length - stride tokens of context (fewer at the start).

    logits: int64 ids (B, T) -> (B, T, V), any float dtype and device; windows of a batch have equal length,
    so nothing is padded.  tokens: integers (n + 1,).  token_bytes: int64 (n,), bytes of each target (see
    TokenBytes.of).  progress gets the number of targets scored so far and a note with the running bpb.

    Raises: UsageError for a bad length, stride or batch; InputError for targets without any bytes, logits of a
    wrong shape and a loss that is not finite.
    Source: sliding evaluation of the challenge; softmax in float32, sums in float64.
    """
    started = time.perf_counter()
    ids = torch.from_numpy(np.asarray(tokens).astype(np.int64))
    windows = plan(len(ids) - 1, length, stride)
    if len(token_bytes) != len(ids) - 1 or not token_bytes.sum():
        raise InputError(
            f"{len(ids) - 1} targets come with {len(token_bytes)} byte counts of sum "
            f"{token_bytes.sum()}, need one for each and a sum of at least 1"
        )
    nats, scored, bytes_scored = 0.0, 0, 0
    for group in _batches(windows, batch):
        first, stop = group[0].first_scored, group[-1].stop
        nats += _nats(logits, ids, group)
        if not math.isfinite(nats):
            raise InputError(
                f"the model's loss is not finite between targets {first} and {stop}", hint="look for NaN in its weights"
            )
        scored += stop - first
        bytes_scored += int(token_bytes[first:stop].sum())
        if progress:
            progress(scored, f"bpb {nats / math.log(2) / max(bytes_scored, 1):.4f}")
    return Score(
        scorer="sliding",
        nats=nats,
        tokens=scored,
        bytes=bytes_scored,
        windows=len(windows),
        seconds=time.perf_counter() - started,
    )


def _batches(windows: list[Window], batch: int) -> Iterator[list[Window]]:
    """Neighbouring windows of one shape, at most `batch` together."""
    if batch < 1:
        raise UsageError(f"{batch} windows at a time, need at least 1")
    group: list[Window] = []
    for window in windows:
        if group and (len(group) == batch or _shape(window) != _shape(group[0])):
            yield group
            group = []
        group.append(window)
    yield group


def _shape(window: Window) -> tuple[int, int]:
    return window.stop - window.start, window.first_scored - window.start


# no_grad, not inference_mode: tables a model caches here must stay usable when its training goes on.
@torch.no_grad()
def _nats(logits: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor, group: list[Window]) -> float:
    inputs = torch.stack([ids[w.start : w.stop] for w in group])
    targets = torch.stack([ids[w.first_scored + 1 : w.stop + 1] for w in group])
    output = logits(inputs)
    if output.ndim != 3 or output.shape[:2] != inputs.shape or output.shape[2] <= int(targets.max()):
        raise InputError(
            f"logits have shape {tuple(output.shape)} for inputs {tuple(inputs.shape)} and target "
            f"ids up to {int(targets.max())}",
            hint="the model needs one logit per vocabulary id",
        )
    scored = output[:, -targets.shape[1] :].flatten(0, 1).float()
    losses = cross_entropy(scored, targets.flatten().to(scored.device), reduction="none")
    return float(losses.double().sum())
