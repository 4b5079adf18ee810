"""A loaded model inside its process, and the answers to what `verify.sandbox.remote_model` asks of it."""

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from codec.errors import InputError
from verify.scoring.ranks import Ranks
from verify.scoring.slot import Shifts
from verify.scoring.token_stream import predict
from verify.scoring.ttt import UPDATES, Learner, Momentum, Orthogonal, Update, learner_of

PARTS = ("hidden", "head")
Answer = tuple[dict[str, Any], np.ndarray | None]


def lacks(model: Any) -> dict[str, str]:
    """Adaptive scorer -> why this model cannot be scored by it."""
    found = {}
    if not isinstance(model, torch.nn.Module):
        found["ttt"] = f"ttt trains a torch.nn.Module, its `load` returns a {type(model).__name__}"
    if not all(callable(getattr(model, name, None)) for name in PARTS):
        found["slot"] = "slot needs a model with `.hidden(ids)` and `.head(hidden)`, its `load` returns none"
    if not callable(getattr(model, "reveal", None)):
        found["own"] = "own needs a model with `.reveal(ids, first)`, its `load` returns none"
    return found


def adaptation(model: Any, targets: int | None = None) -> dict[str, Any]:
    """The word for the parent that a model with `reveal` states as `adaptation`; nothing of another model.

    targets: of the run, for a statement that is a function of them; None before there is one, then it says nothing yet.
    Raises: InputError for what is not of JSON.
    """
    stated = getattr(model, "adaptation", None)
    if not callable(getattr(model, "reveal", None)) or (callable(stated) and targets is None):
        return {}
    stated = stated(targets) if callable(stated) else stated
    try:
        return {"adaptation": json.loads(json.dumps(stated))}
    except (TypeError, ValueError, RecursionError):
        raise InputError(
            f"`adaptation` of its model is a {type(stated).__name__} that is more than names and numbers"
        ) from None


def described(update: Update) -> dict[str, Any]:
    """An update for JSON; `update_of` makes it again."""
    name = next(name for name, kind in UPDATES.items() if type(update) is kind)
    values = {field.name: getattr(update, field.name) for field in fields(UPDATES[name])}
    if "dtype" in values:
        values["dtype"] = str(values["dtype"]).removeprefix("torch.")
    return {"name": name, **values}


def update_of(*, name: str, **values: Any) -> Momentum | Orthogonal:
    """What `described` describes."""
    if "dtype" in values:
        values["dtype"] = getattr(torch, values["dtype"])
    return UPDATES[name](**values)


class Served:
    """Answers one request at a time; the loaded model keeps its weights, only copies of it learn.

    But for a model that learns by itself from what is revealed to it: again loads it afresh for its next run.
    """

    def __init__(self, model: Any, device: str, again: Callable[[], Any] | None = None) -> None:
        self._model, self._device, self._again = model, device, again
        self._begun = False
        self._learner: Learner | None = None

    def answer(self, request: dict[str, Any], ids: np.ndarray | None) -> Answer:
        """The message and the array to send back.

        Raises: InputError for logits of another shape and a model that keeps no gradients; whatever the model raises.
        """
        kinds: dict[str, Callable[..., Answer]] = {
            "logits": self._logits,
            "learn": self._learn,
            "train": self._train,
            "begin": self._begin,
            "reveal": self._reveal,
        }
        words = {name: value for name, value in request.items() if name not in ("kind", "shape", "dtype")}
        if ids is not None:
            words["ids"] = torch.from_numpy(ids).to(self._device)
        try:
            return kinds[request["kind"]](**words)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            message = "its model keeps no gradients (inference_mode? no_grad?), so nothing can be fitted to them"
            raise InputError(message, hint="score it by sliding") from error

    @torch.no_grad()
    def _logits(
        self,
        *,
        ids: torch.Tensor,
        first: int,
        learner: bool = False,
        slot: dict[str, Any] | None = None,
        rows: list[int] | None = None,
    ) -> Answer:
        """(B, T - first, V) by the loaded weights or the learned ones, or with shifts fitted to what is before first.

        With `.hidden` and `.head` the output matrix is applied to those positions only.  rows: where in the text each
        row begins; then the model is one that adapts by itself, and is told.
        """
        model = self._learner.model if learner and self._learner else self._model
        if rows is None:
            logits = predict(model, ids, first, Shifts(model, **slot).adapt if slot else None)
        else:
            logits = model.logits(ids, torch.tensor(rows, device=self._device))[:, first:]
        if not isinstance(logits, torch.Tensor) or logits.ndim != 3:
            shape = tuple(logits.shape) if hasattr(logits, "shape") else type(logits).__name__
            raise InputError(
                f"logits have shape {shape} for inputs {tuple(ids.shape)}", hint="need (batch, tokens, ids)"
            )
        return {"kind": "logits"}, logits.float().cpu().numpy()

    def _learn(self, *, update: dict[str, Any], clip: float, frozen_blocks: int) -> Answer:
        """Forget what was learned, start again from the loaded weights."""
        self._learner = learner_of(self._model, update=update_of(**update), clip=clip, frozen_blocks=frozen_blocks)
        return {"kind": "learning"}, None

    def _train(self, *, ids: torch.Tensor, ranks: int, **how: Any) -> Answer:
        if self._learner is None:
            raise InputError("is to be trained, but nothing learns")
        self._learner.train(ids, **how, ranks=Ranks(count=ranks))
        return {"kind": "trained"}, None

    def _begin(self, *, targets: int) -> Answer:
        """A run over so many targets begins, with what the artifact holds."""
        if self._begun and self._again:
            self._model = None  # or both would need memory
            self._model = self._again()
        self._begun = True
        if callable(begin := getattr(self._model, "begin", None)):
            begin(targets)
        return {"kind": "begun", **adaptation(self._model, targets)}, None

    def _reveal(self, *, ids: torch.Tensor, first: int) -> Answer:
        self._model.reveal(ids, first)
        return {"kind": "revealed"}, None
