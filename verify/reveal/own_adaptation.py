"""What `load` of a script returns so that `ttt` and `slot` are its own adaptation, which verify shows the text to."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from verify.scoring.adaptation import Adaptation
from verify.scoring.ranks import Ranks
from verify.scoring.slot import Shifts
from verify.scoring.token_stream import predict
from verify.scoring.ttt import UPDATES, cosine, learner_of


class Own(nn.Module):
    """A model whose weights stay; its answers to requests that say where rows begin are those of ttt or slot.

    model: see `Sliding`.  length: tokens of a window.
    """

    def __init__(self, model: Any, kind: str, how: Adaptation, length: int) -> None:
        super().__init__()
        self.model, self.hidden, self.head = model, model.hidden, model.head
        self.kind, self.how, self.length, self.shown = kind, how, length, 1
        self.shifts = Shifts(model, steps=how.slot_steps, lr=how.slot_lr)
        if kind == "ttt":
            update = UPDATES[how.update]()
            self.learner = learner_of(model, update=update, clip=1.0, frozen_blocks=how.frozen_blocks)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Of the model: what the artifact holds."""
        return self.model.state_dict(*args, **kwargs)

    def begin(self, targets: int) -> None:
        """See docs/extending.md."""
        self.targets = targets

    def adaptation(self, targets: int) -> dict[str, Any]:
        """See docs/extending.md."""
        if self.kind == "slot":
            return {"stretch": "window"}
        return {"stretch": "chunk", "targets": self.how.chunk_of(targets, self.length)}

    def logits(self, ids: Tensor, first: Tensor | None = None) -> Tensor:
        """int64 (B, T) -> (B, T, V); first: int64 (B,), where in the text rows begin."""
        if first is None or self.kind == "ttt":
            logits: Tensor = (self.model if first is None else self.learner.model).logits(ids)
            return logits
        context = self.shown - 1 - int(first[0])
        found = predict(self.model, ids, context, self.shifts.adapt)
        return torch.cat([found.new_zeros(len(ids), context, found.shape[2]), found], 1)

    def reveal(self, ids: Tensor, first: int) -> None:
        """Tokens from position `first` on, whose targets are scored."""
        self.shown, how = first + len(ids), self.how
        if self.kind == "ttt":
            chunk = how.chunk_of(self.targets, self.length)
            self.learner.train(
                ids,
                length=self.length,
                epochs=how.epochs,
                sequences=how.sequences,
                lr=how.lr * cosine(first // chunk, math.ceil(self.targets / chunk)),
                ranks=Ranks(),
            )
