"""Score-first test-time training: score a chunk with the weights as they are, then train on it."""

import copy
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from codec.errors import UsageError
from verify.scoring.ranks import Ranks
from verify.scoring.scorer import Scored
from verify.scoring.sliding import digest
from verify.scoring.token_stream import Stream
from verify.scoring.windows import Window, plan

BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Source: Keller Jordan's Muon; maps singular values into about 0.7..1.2
Frozen = Mapping[str, Sequence[slice]]


class Update(Protocol):
    """How gradients become steps."""

    def optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Fresh; its learning rate is set before every chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Momentum:
    """Gradient descent with momentum, kept from chunk to chunk.

    Source: pull requests 461, 549, 1413, 1493, 1716.
    """

    momentum: float = 0.9

    def optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """See `Update`."""
        return torch.optim.SGD(parameters, lr=0.0, momentum=self.momentum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthogonal:
    """Matrices, and stacks of them, move along the orthogonalized gradient, all else along the plain one.

    No momentum.  dtype: of the iteration; the record's bfloat16 moves its loss by 8e-5.
    Source: pull request 1176.
    """

    steps: int = 5
    dtype: torch.dtype = torch.float32

    def optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """See `Update`."""
        return _Orthogonal(parameters, {"lr": 0.0, "steps": self.steps, "dtype": self.dtype})


class _Orthogonal(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: the learner has the gradients
        for group in self.param_groups:
            for parameter in group["params"]:
                step = parameter.grad
                if parameter.ndim >= 2:
                    step = orthogonalize(step, steps=group["steps"], dtype=group["dtype"])
                parameter.sub_(step.to(parameter.dtype), alpha=group["lr"])


UPDATES: Mapping[str, type[Momentum] | type[Orthogonal]] = {"sgd": Momentum, "muon": Orthogonal}


def orthogonalize(gradients: Tensor, *, steps: int, dtype: torch.dtype) -> Tensor:
    """(..., r, c) -> the same shape in `dtype`, singular values near 1, by Newton-Schulz iterations."""
    a, b, c = NEWTON_SCHULZ
    x = gradients.to(dtype)
    x = x.div(x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def first_blocks(model: nn.Module, blocks: int) -> Frozen:
    """Parameter name -> which parts of it along its first dimension belong to the first `blocks` blocks.

    All of what is named `blocks.0.` and so on; of a `..._bank`, which stacks R matrices of each of N blocks, block b
    has number b, b + N, b + 2 N, ...: freezing by names alone would leave the banks' matrices free, as happened to
    pull request 1176.

    Raises: UsageError when the model has fewer blocks.
    """
    found = {name: int(match[1]) for name, _ in model.named_parameters() if (match := BLOCK.search(name))}
    count = 1 + max(found.values(), default=-1)
    if not 0 <= blocks <= count:
        raise UsageError(f"{blocks} blocks are to be frozen, the model has {count}")
    whole = {name: [slice(None)] for name, block in found.items() if block < blocks}
    banks = [name for name, _ in model.named_parameters() if name.endswith("_bank")] if blocks else []
    return whole | {name: [slice(block, None, count) for block in range(blocks)] for name in banks}


class Learning(Protocol):
    """What `ScoreFirst` scores by and trains: a copy of a model, here (`Learner`) or in another process."""

    @property
    def model(self) -> Any:
        """Offers `.logits` with the weights learned so far."""

    def digest(self) -> str:
        """Names weights, buffers and optimizer state."""

    def train(self, ids: Tensor, *, length: int, epochs: int, sequences: int, lr: float, ranks: Ranks) -> object:
        """See `Learner.train`."""


class Step(NamedTuple):
    """loss: mean nats per token before it.  gradient_norm: over all that learns, before clipping."""

    loss: float
    gradient_norm: float


class Learner:
    """A copy of a model that learns, with its optimizer's state; the model itself never changes.

    frozen: parameter name -> the parts along its first dimension that stay as they are.  clip: largest norm of the
    gradient over all that learns.
    """

    def __init__(self, model: nn.Module, *, update: Update, clip: float, frozen: Frozen) -> None:
        self.model: Any = copy.deepcopy(model).eval()
        self._clip = clip
        self._learning: list[Tensor] = []
        self._held: list[tuple[int, slice]] = []  # number in _learning, part
        for name, parameter in self.model.named_parameters():
            parts = frozen.get(name, ())
            parameter.requires_grad_(slice(None) not in parts)
            if parameter.requires_grad:
                self._held += [(len(self._learning), part) for part in parts]
                self._learning.append(parameter)
        if not self._learning:
            raise UsageError("every parameter is frozen, nothing is left to train")
        self._optimizer = update.optimizer(self._learning)

    def digest(self) -> str:
        """Names weights, buffers and optimizer state."""
        kept = [value for state in self._optimizer.state.values() for value in state.values()]
        return digest(self.model, *(value for value in kept if isinstance(value, Tensor)))

    def train(self, ids: Tensor, *, length: int, epochs: int, sequences: int, lr: float, ranks: Ranks) -> list[Step]:
        """Pass `epochs` times over consecutive sequences of `length` targets, `sequences` of them per step.

        ids: int64 (k + 1,); what is left after whole sequences is not used.  Ranks share the sequences of a step;
        as each adds its part of the mean over the step, it does not matter how many come to which.
        """
        rows = (len(ids) - 1) // length
        inputs, targets = (part[: rows * length].view(rows, length) for part in (ids[:-1], ids[1:]))
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        return [
            self._step(inputs[first : first + sequences], targets[first : first + sequences], ranks)
            for _ in range(epochs)
            for first in range(0, rows, sequences)
        ]

    @torch.enable_grad()
    def _step(self, inputs: Tensor, targets: Tensor, ranks: Ranks) -> Step:
        gradients = [torch.zeros_like(parameter) for parameter in self._learning]
        for parameter, gradient in zip(self._learning, gradients, strict=True):
            parameter.grad = gradient
        loss = torch.zeros((), device=inputs.device)
        for ours, part in ranks.parts(range(len(inputs))):
            if ours and part:
                rows = slice(part[0], part[-1] + 1)
                logits = self.model.logits(inputs[rows]).flatten(0, 1).float()
                share = cross_entropy(logits, targets[rows].flatten(), reduction="sum") / targets.numel()
                torch.autograd.backward([share])
                loss += share.detach()
        ranks.add(loss, *gradients)
        for number, held in self._held:
            gradients[number][held] = 0
        norm = clip_grad_norm_(self._learning, self._clip)
        self._optimizer.step()
        return Step(float(loss), float(norm))


def learner_of(model: nn.Module, *, update: Update, clip: float, frozen_blocks: int) -> Learner:
    """A copy of a model of this process, whose first blocks stay as they are.

    Raises: UsageError for more blocks than there are.
    """
    return Learner(model, update=update, clip=clip, frozen=first_blocks(model, frozen_blocks))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFirst:
    """Score all windows of a chunk with frozen weights, then train a copy of the model on the chunk; go on.

    model: a module with `.logits`, see `Sliding`.  chunk: targets.  epochs: passes over a chunk.  sequences: of
    `length` tokens in a step.  lr: of the first chunk, falling along half a cosine to 0 at the last one, which is
    not trained on.  clip: largest norm of a gradient.  frozen_blocks: how many of the first blocks do not learn.
    learner: makes what learns from model, update, clip and frozen_blocks; another one for a model that is no module of
    this process.

    Source: pull request 461 and its line up to 1716, whose values the defaults are.
    """

    model: Any
    vocab_size: int
    length: int
    stride: int
    chunk: int = 32768
    epochs: int = 3
    sequences: int = 32
    lr: float = 0.005
    update: Update = Momentum()
    clip: float = 1.0
    frozen_blocks: int = 0
    learner: Callable[..., Learning] = learner_of
    device: str | torch.device = "cpu"
    evidence: bool = False
    name: str = "ttt"

    def __post_init__(self) -> None:
        for name in ("chunk", "epochs", "sequences"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, need at least 1")
        if self.chunk < self.length:
            raise UsageError(f"chunks of {self.chunk} targets hold no sequence of {self.length} to train on")

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int | Ranks = 1) -> Iterator[Scored]:
        """See `Scorer`.

        Raises: as `Sliding.run`; UsageError for more frozen blocks than there are.
        """
        stream, ranks = Stream(tokens, self.device), Ranks.of(ranks)
        learner = self.learner(self.model, update=self.update, clip=self.clip, frozen_blocks=self.frozen_blocks)
        chunks = by_chunk(plan(stream.targets, self.length, self.stride), stream.targets, self.chunk)
        for number, windows in enumerate(chunks):
            named = learner.digest() if self.evidence else ""
            for scored in stream.scores(learner.model, windows, batch=batch, ranks=ranks, keep_log_probs=self.evidence):
                yield replace(scored, digest=named)
            if number + 1 < len(chunks):
                start = number * self.chunk
                learner.train(
                    stream.revealed(start, start + self.chunk + 1),
                    length=self.length,
                    epochs=self.epochs,
                    sequences=self.sequences,
                    lr=self.lr * cosine(number, len(chunks)),
                    ranks=ranks,
                )


def by_chunk(windows: Sequence[Window], targets: int, chunk: int) -> list[list[Window]]:
    """The windows of each chunk of targets; a window belongs to the chunk of the first target that it scores."""
    chunks: list[list[Window]] = [[] for _ in range(math.ceil(targets / chunk))]
    for window in windows:
        chunks[window.first_scored // chunk].append(window)
    return chunks


def cosine(number: int, count: int) -> float:
    """Factor of the learning rate in chunk `number` of `count`: 1 in the first, 0 in the last."""
    return (1 + math.cos(math.pi * number / max(count - 1, 1))) / 2
