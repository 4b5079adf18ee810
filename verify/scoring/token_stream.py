"""A token source that keeps a target to itself until its score is fixed: commit, then reveal."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.errors import InputError, UsageError
from verify.scoring.ranks import Ranks
from verify.scoring.scorer import Scored
from verify.scoring.windows import Window, batches

Adapt = Callable[[Tensor, Tensor], Tensor]


class Stream:
    """Owns the tokens of one run.  The model meets them only in `scores`, in order, each target once.

    tokens: integers (n + 1,).  targets: n.  committed: positions below it have their final scores.
    """

    def __init__(self, tokens: np.ndarray, device: str | torch.device = "cpu") -> None:
        self._ids = torch.from_numpy(np.asarray(tokens).astype(np.int64)).to(device)
        self._committed = 0
        self.targets = len(self._ids) - 1

    @property
    def committed(self) -> int:
        return self._committed

    def revealed(self, start: int, stop: int) -> Tensor:
        """tokens[start:stop], int64; of the targets only those that are committed.

        Raises: UsageError beyond them.
        """
        if not 0 <= start <= stop <= self._committed + 1:
            raise UsageError(f"tokens {start} to {stop} were asked for, {self._committed + 1} are revealed")
        return self._ids[start:stop]

    def scores(
        self,
        model: Any,
        windows: Sequence[Window],
        *,
        batch: int,
        ranks: Ranks,
        adapt: Adapt | None = None,
        keep_log_probs: bool = False,
    ) -> Iterator[Scored]:
        """Score windows with the model as it is, and commit them; those of other processes are only committed.

        adapt: gets hidden states (B, C, D) and targets int64 (B, C) of the C positions of each row that come before
        the first it scores, and gives what is added to its hidden states there, (B, 1, D).  Every row must be
        treated by itself: a row's context holds targets that other rows of the batch are about to score.
        keep_log_probs: give those as well.

        Raises: UsageError when a window does not start to score at the frontier.
        """
        for ours, part in ranks.parts(windows):
            for group in batches(part, batch):
                expected = self._committed
                for window in group:
                    if window.first_scored != expected:
                        raise UsageError(f"position {window.first_scored} is to be scored, {expected} comes next")
                    expected = window.stop
                scored = self._score(model, group, adapt, keep_log_probs) if ours else None
                self._committed = expected
                if scored:
                    yield scored

    # no_grad, not inference_mode: tables a model caches here must stay usable when its training goes on.
    @torch.no_grad()
    def _score(self, model: Any, group: list[Window], adapt: Adapt | None, keep_log_probs: bool) -> Scored:
        first, stop = group[0].first_scored, group[-1].stop
        inputs = torch.stack([self._ids[window.start : window.stop] for window in group])
        logits = predict(model, inputs, first - group[0].start, adapt)
        targets = self._ids[first + 1 : stop + 1]
        if logits.shape[:-1] != (len(group), len(targets) // len(group)) or logits.shape[-1] <= int(targets.max()):
            raise InputError(
                f"logits have shape {tuple(logits.shape)} for {len(group)} x {len(targets) // len(group)} targets with "
                f"ids up to {int(targets.max())}",
                hint="the model needs one logit per vocabulary id",
            )
        log_probs = logits.flatten(0, 1).float().log_softmax(-1)
        return Scored(
            positions=np.arange(first, stop),
            nats=-log_probs.gather(1, targets[:, None])[:, 0].double().cpu().numpy(),
            log_probs=log_probs.cpu().numpy() if keep_log_probs else None,
            windows=len(group),
        )


def predict(model: Any, inputs: Tensor, context: int, adapt: Adapt | None = None) -> Tensor:
    """Logits (B, T - context, V) of inputs int64 (B, T) without the first `context` positions; adapt: see `scores`.

    With `.hidden` and `.head` the output matrix, often the largest product, is applied to those positions only.
    """
    if not all(callable(getattr(model, name, None)) for name in ("hidden", "head")):
        logits: Tensor = model.logits(inputs)
        return logits[:, context:]
    hidden = model.hidden(inputs)
    scored = hidden[:, context:]
    if adapt and context:
        scored = scored + adapt(hidden[:, :context], inputs[:, 1 : context + 1])
    output: Tensor = model.head(scored)
    return output
