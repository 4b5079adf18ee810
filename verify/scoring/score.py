"""The score of a run: nats summed over its targets, and bits per byte."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch

from codec.errors import InputError
from verify.scoring.ranks import Ranks
from verify.scoring.scorer import Scored, Scorer


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


def total(
    scorer: Scorer,
    tokens: np.ndarray,
    token_bytes: np.ndarray,
    *,
    batch: int,
    ranks: int | Ranks = 1,
    progress: Callable[[int, str], None] | None = None,
) -> Score:
    """Run a scorer over the text and add up, in float64.

    tokens: integers (n + 1,).  token_bytes: int64 (n,), bytes of each target (see TokenBytes.of).  progress gets
    the number of targets scored so far and a note with the running bpb.  With `Ranks.joined()` every process of the
    group gets the whole sum; progress is that of its own part.

    Raises: InputError for targets without any bytes, a loss that is not finite and a scorer that does not give
    every target one score; what the scorer raises.
    """
    started = time.perf_counter()
    targets, ranks = len(tokens) - 1, Ranks.of(ranks)
    if len(token_bytes) != targets or not token_bytes.sum():
        raise InputError(
            f"{targets} targets come with {len(token_bytes)} byte counts of sum "
            f"{token_bytes.sum()}, need one for each and a sum of at least 1"
        )
    run: Callable[..., Iterator[Scored]] = scorer.run  # ours take Ranks; others get a plain number
    sums, times = np.zeros(4), np.zeros(targets, np.int32)
    for scored in run(tokens, batch=batch, ranks=ranks if ranks.rank is not None else ranks.count):
        at = scored.positions
        np.add.at(times, at, 1)
        sums += scored.nats.sum(), len(at), token_bytes[at].sum(), scored.windows
        if not math.isfinite(sums[0]):
            raise InputError(
                f"the model's loss is not finite between targets {at[0]} and {at[-1] + 1}",
                hint="look for NaN in its weights",
            )
        if progress:
            progress(int(sums[1]), f"bpb {sums[0] / math.log(2) / max(sums[2], 1):.4f}")
    ranks.add(torch.from_numpy(sums), torch.from_numpy(times))
    nats, given, size, windows = sums.tolist()
    if not (times == 1).all():
        raise InputError(
            f"{scorer.name} gave {given:.0f} scores for {(times > 0).sum()} of {targets} targets, need one for each"
        )
    return Score(
        scorer=scorer.name,
        nats=nats,
        tokens=targets,
        bytes=int(size),
        windows=int(windows),
        seconds=time.perf_counter() - started,
    )
