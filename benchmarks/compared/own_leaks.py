"""A toy that adapts by itself and reads ahead in a known share of positions or batches, and how often that is seen."""

from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.compared.leaks import BATCH, LENGTH, PROBED, STRIDE, TARGETS, VOCAB, Leak, Text, nats_of, raise_next
from verify.audit.causality_rules import FLOAT
from verify.foresight.own import OwnRun, probe_own
from verify.foresight.probe import Foresight
from verify.reveal.stretches import OwnStatement
from verify.sandbox.model_server import Served
from verify.sandbox.own_scorer import OwnScorer

CHUNK, RATE = 256, 0.1  # targets of a stretch; what one of them adds to its logit
STATED = {"stretch": "chunk", "targets": CHUNK}


class InProcess:
    """A model of this process that is asked as one of another is: see `verify.sandbox.remote_model.Remote`."""

    adapts, where = True, "here"

    def __init__(self, served: Served, words: dict[str, Any] | None = None) -> None:
        self._served, self._words = served, words or {}
        self._ids = torch.empty(0, 0, dtype=torch.int64)

    def begin(self, targets: int) -> OwnStatement:
        """See `Remote`."""
        return OwnStatement.read(self._served.answer({"kind": "begin", "targets": targets}, None)[0]["adaptation"])

    def asked(self, **words: Any) -> "InProcess":
        """See `Remote`."""
        return InProcess(self._served, words)

    def tell(self, kind: str, ids: Tensor, **words: Any) -> None:
        """See `Remote`."""
        self._served.answer({"kind": kind, **words}, ids.numpy())

    def hidden(self, ids: Tensor) -> Tensor:
        """See `Remote`."""
        self._ids = ids
        return torch.arange(ids.shape[1]).expand(len(ids), -1)[..., None]

    def head(self, positions: Tensor) -> Tensor:
        """See `Remote`."""
        request = {"kind": "logits", "first": int(positions[0, 0, 0]), **self._words}
        logits = self._served.answer(request, self._ids.numpy())[1]
        assert logits is not None
        return torch.from_numpy(logits)


class LeakingLearner:
    """A bigram model that learns from what is revealed, with a leak: the next id, wherever in the request it stands.

    A leak by request is one in as many targets as a batch has, at places of the text: the process that is probed is
    asked less often.  Noise is also in what it learns.
    """

    adaptation = STATED

    def __init__(self, text: Text, leak: Leak, seed: int) -> None:
        rng, size = np.random.default_rng(seed), BATCH * STRIDE if leak.by_request else 1
        self._leak, self._table = leak, text.table.clone()
        marked = np.zeros(TARGETS // size, bool)
        marked[rng.permutation(len(marked))[: round(leak.share * len(marked))]] = True
        self._marked = torch.from_numpy(marked.repeat(size))
        self._noise = torch.Generator().manual_seed(int(np.random.default_rng().integers(1 << 60)))

    def logits(self, ids: Tensor, first: Tensor) -> Tensor:
        """int64 (B, T), (B,) -> float32 (B, T, V)."""
        logits, places = self._table[ids], first[:, None] + torch.arange(ids.shape[1])
        shown = torch.full((TARGETS + 1,), -1)
        shown[places] = ids
        following = shown[places + 1]
        nats = torch.where(self._marked[places] & (following >= 0), self._leak.nats, 0.0)
        raise_next(logits, following.clamp(min=0), nats)
        return self._noisy(logits)

    def reveal(self, ids: Tensor, first: int) -> None:
        """Learn from targets ids[1:]."""
        self._table.index_put_((ids[:-1], ids[1:]), torch.tensor(RATE), accumulate=True)
        self._table = self._noisy(self._table.log_softmax(-1))

    def _noisy(self, values: Tensor) -> Tensor:
        if not self._leak.noise:
            return values
        return values + self._leak.noise * torch.randn(values.shape, generator=self._noise)


def process(text: Text, leak: Leak, seed: int) -> InProcess:
    """A fresh one, with the toy loaded."""
    return InProcess(Served(LeakingLearner(text, leak, seed), "cpu"))


def own_run(text: Text, leak: Leak, seed: int) -> OwnRun:
    """A run of the toy."""
    scorer = OwnScorer(model=process(text, leak, seed), vocab_size=VOCAB, length=LENGTH, stride=STRIDE)
    return OwnRun(
        tokens=text.tokens,
        nats=nats_of(scorer, text),
        statement=OwnStatement.read(STATED),
        length=LENGTH,
        stride=STRIDE,
        batch=BATCH,
    )


def looked_own(leak: Leak, seed: int, *, share: float = PROBED, exact: bool = True) -> tuple[Foresight, float]:
    """Score a toy and probe it; with the share of the positions that leaked: the last of a request cannot."""
    text = Text(seed)
    run = own_run(text, leak, seed)
    still = own_run(text, replace(leak, noise=0.0), seed) if leak.noise else run
    rng = np.random.default_rng([seed, 1])
    found = probe_own(lambda: nullcontext(process(text, leak, seed)), run, rng, share=share, exact=exact)
    return found, float((np.abs(still.nats - _honest(seed)) > FLOAT).mean())


@cache
def _honest(seed: int) -> np.ndarray:
    """Nats without a leak."""
    return own_run(Text(seed), Leak(share=0.0), seed).nats
