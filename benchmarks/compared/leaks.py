"""Toy models that read ahead in a known share of positions or requests, and how often the probe of verify sees them."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from verify.audit.causality_rules import FLOAT
from verify.foresight.findings import prefix_finding
from verify.foresight.power import WORTH, Power
from verify.foresight.probe import Foresight, probe
from verify.foresight.rows import ScoredRun
from verify.memorisation import Watched
from verify.scoring.score import total
from verify.scoring.scorer import Scorer
from verify.scoring.sliding import Sliding
from verify.scoring.windows import batches, plan

VOCAB, TARGETS, LENGTH, STRIDE, BATCH = 64, 4_096, 32, 8, 16
SIGHT = 6  # tokens by which a position is known again: 64^6 texts
WINDOWS = plan(TARGETS, LENGTH, STRIDE)
PROBED = 0.08  # of the forwards: 36 cuts in proportion to targets, so that 2 % of the positions are seen half the time


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """share: of positions, or with by_request of the scoring requests.  nats: by which the next id is raised there.

    noise: deviation of what is added to every logit, another one in every request.
    """

    share: float
    by_request: bool = False
    noise: float = 0.0

    @property
    def nats(self) -> float:
        """So that the run gains WORTH nats per token."""
        return WORTH / self.share if self.share else 0.0


class Text:
    """Random tokens and the log-probabilities of a bigram table: what a leak does is all that there is to see."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(0, VOCAB, TARGETS + 1)
        self.table = torch.from_numpy(rng.normal(0, 1, (VOCAB, VOCAB)).astype(np.float32)).log_softmax(-1)


class Leaking:
    """A bigram model with a leak.  Each instance is a process of its own: it counts its requests from the first."""

    def __init__(self, text: Text, leak: Leak, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._text, self._leak, self._asked = text, leak, 0
        requests = len(list(batches(WINDOWS, BATCH)))
        self._requests = set(rng.permutation(requests)[: round(leak.share * requests)].tolist())
        padded = torch.from_numpy(np.concatenate([np.zeros(SIGHT - 1, np.int64), text.tokens[:-1]]))
        marked = rng.permutation(TARGETS)[: round(leak.share * TARGETS)]
        self._marked = _names(padded)[torch.from_numpy(marked)]
        self._noise = torch.Generator().manual_seed(int(np.random.default_rng().integers(1 << 60)))

    def logits(self, ids: Tensor) -> Tensor:
        """int64 (B, T) -> float32 (B, T, V)."""
        logits = self._text.table[ids]
        if self._leak.by_request:
            reads = torch.full(ids.shape, self._asked in self._requests)
        else:
            reads = torch.isin(_names(torch.cat([ids.new_zeros(len(ids), SIGHT - 1), ids], 1)), self._marked)
        self._asked += 1
        raise_next(logits[:, :-1], ids[:, 1:], torch.where(reads[:, :-1], self._leak.nats, 0.0))
        if self._leak.noise:
            logits += self._leak.noise * torch.randn(logits.shape, generator=self._noise)
        return logits


def raise_next(log_probs: Tensor, following: Tensor, nats: Tensor) -> None:
    """Give more of log_probs (B, T, V) to ids int64 (B, T), by nats (B, T), and the others what is left; in place."""
    truth = log_probs.gather(2, following[..., None])[..., 0]
    rest = torch.log1p(-(truth + nats).exp()) - torch.log1p(-truth.exp())
    log_probs += rest[..., None]
    log_probs.scatter_(2, following[..., None], (truth + nats)[..., None])


def scored(text: Text, leak: Leak, seed: int) -> ScoredRun:
    """A run of the toy, in this process."""
    scorer = Sliding(model=Leaking(text, leak, seed), vocab_size=VOCAB, length=LENGTH, stride=STRIDE)
    return ScoredRun(tokens=text.tokens, nats=nats_of(scorer, text), windows=WINDOWS, batch=BATCH)


def nats_of(scorer: Scorer, text: Text) -> np.ndarray:
    """float32 (TARGETS,)."""
    watched = Watched(scorer, TARGETS)
    total(watched, text.tokens, np.ones(TARGETS, np.int64), batch=BATCH)
    return watched.nats


Look = Callable[..., tuple[Foresight, float]]  # (leak, seed, *, share, exact), as `looked`


def looked(leak: Leak, seed: int, *, share: float = PROBED, exact: bool = True) -> tuple[Foresight, float]:
    """Score a toy and probe it; with the share of the positions that leaked: the last of a window cannot."""
    text = Text(seed)
    run, honest = scored(text, leak, seed), scored(text, Leak(share=0.0), seed)
    still = scored(text, replace(leak, noise=0.0), seed) if leak.noise else run

    def start() -> nullcontext[Leaking]:
        return nullcontext(Leaking(text, leak, seed))

    leaked = float((np.abs(still.nats - honest.nats) > FLOAT).mean())
    return probe(start, run, np.random.default_rng([seed, 1]), share=share, exact=exact), leaked


def found_in(
    runs: int, leak: Leak, look: Look = looked, *, share: float = PROBED, exact: bool = True
) -> tuple[int, float]:
    """In how many of the runs the leak was seen, and with which probability it should have been, by the formula."""
    found = [look(leak, seed, share=share, exact=exact) for seed in range(runs)]
    caught = sum(prefix_finding(each).level == "fail" for each, _ in found)
    return caught, float(np.mean([_stated(each, leaked, leak.nats) for each, leaked in found]))


def least_found(runs: int, chance: float, doubt: float = 0.001) -> int:
    """How many finds in so many runs are no sign of a lower chance: fewer come with at most `doubt`."""
    below = 0.0
    for found in range(runs + 1):
        below += math.comb(runs, found) * chance**found * (1 - chance) ** (runs - found)
        if below > doubt:
            return found
    return runs


def _stated(found: Foresight, leaked: float, nats: float) -> float:
    """What was to be seen; without noise also where a leak by request makes repeats differ."""
    power = Power(found.cuts) if found.exact else found.power
    return power.seen(leaked, leaked * nats) if leaked else 0.0


def _names(ids: Tensor) -> Tensor:
    """int64 (..., T - SIGHT + 1): a name for each SIGHT tokens in a row."""
    powers = VOCAB ** torch.arange(SIGHT)
    return (ids.unfold(-1, SIGHT, 1) * powers).sum(-1)
