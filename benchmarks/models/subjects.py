"""Trained models that bench_rd.py quantizes: their tensors, their calibration, what they score with other weights.

subject = language_model("cpu-bench", CHECKPOINT, DATA, targets=65_536)
layers = subject.calibrate(seed=0)
subject.score({"tok_emb.weight": other})["kl"]
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models import parcae
from benchmarks.models.minilm import MiniLM
from codec.errors import UsageError
from codec.storage.calibration_file import Layers, read_layers
from codec.storage.token_shards import find_shards, find_tokenizer
from packager.importers.read_any import read_any
from pgolf.checkpoints import read_model
from trainer.calibration import TOKENS_PER_INPUT, calibrate, calibration_model, training_windows
from trainer.data.loader import Loader
from trainer.model.config import GPTConfig
from verify.scoring.validation import Validation

CALIBRATION_TOKENS = 2_048  # per pass, as `pgolf calibrate` on a CPU
SCORED_TOKENS = 4_096  # per pass
FINISHING_SEQUENCES, FINISHING_TOKENS, FINISHING_RATE = 8, 256, 0.002  # of a step; the rate falls to 0
LARGEST_FINISHED = 60_000  # weights: what is larger is a table of its own

Arrays = Mapping[str, np.ndarray]


class Subject(Protocol):
    """tensors: all that a file of the model holds, float32 by name."""

    @property
    def name(self) -> str: ...

    @property
    def tensors(self) -> Arrays: ...

    def calibrate(self, *, seed: int = 0, times: int = 1, weights: Arrays | None = None) -> Layers:
        """On training text.  times: as many tokens.  weights: those of a changed model."""

    def score(self, weights: Arrays) -> dict[str, float]:
        """On held-out text, against the float model; tensors that are not given stay what they are."""


@dataclass(kw_only=True)
class LanguageModel:
    """Figures: `loss`, nats added to a target; `bpb`, the same in bits per byte; `kl`, nats per target.

    model: with `logits`, and what `trainer.calibration.calibrate` needs.  ids: int64 (targets + 1,).
    """

    name: str
    tensors: Arrays
    model: nn.Module
    seq_len: int
    vocab_size: int
    data: Path
    ids: Tensor
    target_bytes: int
    calibrations: dict[int, Layers] = field(default_factory=dict)

    def calibrate(self, *, seed: int = 0, times: int = 1, weights: Arrays | None = None) -> Layers:
        if times == 1 and weights is None and seed in self.calibrations:
            return self.calibrations[seed]
        widest = max(array.shape[1] for name, array in self.tensors.items() if array.ndim == 2)
        sequences = times * math.ceil(TOKENS_PER_INPUT * widest / self.seq_len)
        batch = min(max(CALIBRATION_TOKENS // self.seq_len, 1), sequences)
        loader = Loader(self.data, seq_len=self.seq_len, sequences=batch, vocab_size=self.vocab_size, seed=seed)
        self._load(weights or {})
        found = calibrate(self.model, training_windows(loader, sequences), seed=seed)  # type: ignore[arg-type]
        self._load({})
        return Layers(
            hessians=found.hessians,
            sensitivities=found.sensitivities,
            gradients=found.gradients,
            frequencies=found.frequencies,
            fishers=found.fishers,
            batch_tokens=found.tokens / math.ceil(found.sequences / batch),
        )

    def score(self, weights: Arrays) -> dict[str, float]:
        before, after, divergence = 0.0, 0.0, 0.0
        batches = self._exact  # of the float model, which is loaded now
        self._load(weights)
        for place, exact in enumerate(batches):
            now, (_, targets) = self._logs(place), self._batch(place)
            chosen = targets[..., None]
            before -= float(exact.gather(-1, chosen).double().sum())
            after -= float(now.gather(-1, chosen).double().sum())
            divergence += float((exact.exp() * (exact - now)).sum(-1).double().sum())
        self._load({})
        count = len(self.ids) - 1
        loss = (after - before) / count
        return {"loss": loss, "bpb": loss * count / math.log(2) / self.target_bytes, "kl": divergence / count}

    def finished(self, weights: Arrays, steps: int) -> dict[str, np.ndarray]:
        """weights, and small tensors that are not among them trained to match the float model on training text."""
        self._load({})
        student = copy.deepcopy(self.model)
        self._load(weights, student)
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(name not in weights and parameter.numel() < LARGEST_FINISHED)
        free = {name: each for name, each in student.named_parameters() if each.requires_grad}
        optimizer = torch.optim.Adam(free.values(), lr=FINISHING_RATE, betas=(0.9, 0.99))
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        loader = Loader(
            self.data, seq_len=FINISHING_TOKENS, sequences=FINISHING_SEQUENCES, vocab_size=self.vocab_size, seed=0
        )
        for step in range(steps):
            ids = loader.batch(step)[0]
            with torch.no_grad():
                exact = self.model.logits(ids).float().log_softmax(-1)  # type: ignore[operator]
            now = student.logits(ids).float().log_softmax(-1)  # type: ignore[operator]
            optimizer.zero_grad()
            (exact.exp() * (exact - now)).sum(-1).mean().backward()
            optimizer.step()
            falling.step()
        return {**weights, **{name: each.detach().numpy() for name, each in free.items()}}

    @cached_property
    def float_loss(self) -> float:
        """Nats per target."""
        chosen = (exact.gather(-1, self._batch(place)[1][..., None]) for place, exact in enumerate(self._exact))
        return -sum(float(each.double().sum()) for each in chosen) / (len(self.ids) - 1)

    @cached_property
    def _exact(self) -> list[Tensor]:
        """Log probabilities of the float model, by batch: 268 MB for 65,536 targets of 1,024 tokens."""
        return [self._logs(place) for place in range(-(-(len(self.ids) - 1) // (self._rows * self.seq_len)))]

    @property
    def _rows(self) -> int:
        return max(SCORED_TOKENS // self.seq_len, 1)

    def _batch(self, place: int) -> tuple[Tensor, Tensor]:
        rows = slice(place * self._rows, (place + 1) * self._rows)
        return self.ids[:-1].view(-1, self.seq_len)[rows], self.ids[1:].view(-1, self.seq_len)[rows]

    def _logs(self, place: int) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model.logits(self._batch(place)[0])  # type: ignore[operator]
            return logits.float().log_softmax(-1)

    def _load(self, weights: Arrays, model: nn.Module | None = None) -> None:
        state = {name: torch.tensor(weights.get(name, array)) for name, array in self.tensors.items()}
        (model or self.model).load_state_dict(state)


def language_model(
    name: str, path: Path, data: Path, *, targets: int = 65_536, calibration: Path | None = None
) -> LanguageModel:
    """A GPT of the toolkit's or the field's, or a Parcae model, by its tensors.

    data: folder of token shards and their tokenizer, as for training.  targets: of the validation shards, whole
    sequences.  calibration: what `pgolf calibrate` made of it, used for seed 0.
    Raises: InputError for files that are missing or of another model.
    """
    arrays = read_any(path).tensors
    if any(each.startswith("core_block.") for each in arrays):
        looped = parcae.load(path)
        looped.logit_temp = None  # type: ignore[assignment]  # what calibration asks a GPT for
        model: nn.Module = looped
        seq_len, vocab_size = looped.config.seq_len, looped.config.vocab_size
    else:
        imported = read_model(path)
        config = GPTConfig.from_dict(imported.metadata["config"])
        arrays, model = imported.tensors, calibration_model(config, imported.tensors, torch.device("cpu"))
        seq_len, vocab_size = config.seq_len, config.vocab_size
    whole = targets // seq_len * seq_len
    validation = Validation.read(find_shards(data, "val"), find_tokenizer(data), whole)
    known = {0: read_layers(calibration, path, arrays)} if calibration else {}
    return LanguageModel(
        name=name,
        tensors=arrays,
        model=model,
        seq_len=seq_len,
        vocab_size=vocab_size,
        data=data,
        ids=torch.from_numpy(validation.tokens.astype(np.int64)),
        target_bytes=int(validation.token_bytes.sum()),
        calibrations=known,
    )


@dataclass(kw_only=True)
class SentenceEncoder:
    """Figures: `noise`, squared error of the outputs over their energy; `decibels`; `one_minus_cosine`."""

    name: str
    encoder: MiniLM
    calibrations: dict[int, Layers] = field(default_factory=dict)

    @property
    def tensors(self) -> Arrays:
        return self.encoder.tensors

    def calibrate(self, *, seed: int = 0, times: int = 1, weights: Arrays | None = None) -> Layers:
        if weights is not None or times != 1:
            raise UsageError("only language models are calibrated in other ways")
        if seed not in self.calibrations:
            self.calibrations[seed] = self.encoder.calibrate(seed=seed)
        return self.calibrations[seed]

    def score(self, weights: Arrays) -> dict[str, float]:
        found = self.encoder.output_error({**self.tensors, **weights})
        return {
            "noise": 10 ** (found.decibels / 10),
            "decibels": found.decibels,
            "one_minus_cosine": found.one_minus_cosine,
        }
