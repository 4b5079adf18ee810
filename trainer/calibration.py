"""What a trained model's data say about its weights: second moments of inputs and of output gradients.

For a linear layer y = W x, an error E of W changes y by E x.  The Hessian H = sum x x^T weighs the columns of E, the
sensitivities s_i = mean (dL/dy_i)^2 its rows: to second order the loss, summed over the tokens of a batch, grows by
1/2 sum_i s_i E_i H E_i^T, with inputs and gradients taken as independent (K-FAC, Martens and Grosse 2015).

A table that is looked up is a linear layer of one-hot inputs.  Its row i is read for a part f_i of all lookups, and an
error of that row is weighed by the moments G = sum g g^T of the gradients at what was read: 1/2 sum_i f_i E_i G E_i^T.
All other parameters have the moments of their own gradients, the diagonal of the Fisher matrix: 1/2 sum_i F_i E_i^2.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.errors import InputError
from codec.progress import Progress
from codec.storage.calibration_file import FISHER, FREQUENCY, GRADIENT, HESSIAN, SENSITIVITY
from codec.storage.checkpoint import write_checkpoint
from trainer.compute.attention import choose_attention
from trainer.compute.device import autocast, precision, to_device
from trainer.data.loader import Loader
from trainer.model.config import GPTConfig
from trainer.model.gpt import GPT

HEAD = "tok_emb.weight"  # the embedding is the output matrix; its inputs are the outputs of the last norm
# On a trained cpu-demo 64 leave the error of int6 GPTQ on held-out inputs 0.05 dB above that of 340, of the 3.4 dB that
# GPTQ gains over rounding; at 2048 inputs they are pull request 1019's 64 sequences of 2048.
TOKENS_PER_INPUT = 64
TEMPERATURE = 0.8  # of the model's own samples, as pull request 1019 draws them


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """By tensor name: hessians float32 (columns, columns), sensitivities float32 (rows,) of what multiplies inputs.

    gradients float32 (columns, columns), frequencies float32 (rows,): of what is looked up; an embedding that is the
    output matrix too has all four.  fishers: float32, as the tensor, of everything else.
    sequences, tokens: of how many inputs.
    """

    hessians: dict[str, np.ndarray]
    sensitivities: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    frequencies: dict[str, np.ndarray]
    fishers: dict[str, np.ndarray]
    sequences: int
    tokens: int

    def write(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        """As safetensors, see codec.storage.calibration_file; equal input gives equal bytes."""
        kinds = {
            HESSIAN: self.hessians,
            SENSITIVITY: self.sensitivities,
            GRADIENT: self.gradients,
            FREQUENCY: self.frequencies,
            FISHER: self.fishers,
        }
        arrays = {kind + name: array for kind, found in kinds.items() for name, array in found.items()}
        write_checkpoint(path, arrays, {**metadata, "sequences": self.sequences, "tokens": self.tokens})


def calibrate(model: GPT, batches: Iterable[Tensor], *, seed: int = 0, progress: Progress | None = None) -> Calibration:
    """Second moments of every layer, table and parameter; batches: ids int64 (sequences, tokens).

    Hessian, gradient: sum over all tokens, divided by the number of batches; a layer that runs several times in a
    loop counts every pass.  Sensitivity: mean over tokens and passes of the squared derivative of the summed loss.
    Fisher: mean over batches of the squared derivative of a batch's loss.
    Its targets are drawn from the model's own distribution (the true Fisher): then the gradients of different targets
    are uncorrelated and the mean is the curvature of the loss, however good the model.  With the targets of the
    data (the empirical Fisher) it would also hold the mean gradient and products of targets, which are no curvature.

    progress: told the number of sequences done.
    Raises: InputError naming the first layer whose numbers are not finite.
    Source: the code of pull request 1716 for the Hessians.
    """
    device = model.tok_emb.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    moments, count, sequences, tokens = Moments(), 0, 0, 0
    for ids in batches:
        moments.watch(model, ids.to(device), generator)
        count, sequences, tokens = count + 1, sequences + len(ids), tokens + ids.numel()
        if progress:
            progress(sequences, "")
    return moments.means(count, sequences, tokens)


def calibration_model(config: GPTConfig, tensors: Mapping[str, np.ndarray], device: torch.device) -> GPT:
    """The model of a checkpoint as its training saw it, bfloat16 tables on a GPU included."""
    model = GPT(config, choose_attention(device, precision(device))[1])
    model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    to_device(model, device)
    return model.eval()


def training_windows(loader: Loader, sequences: int) -> Iterator[Tensor]:
    """Windows of the training shards in random order, ids int64 (at most the loader's sequences, seq_len)."""
    size = loader.sequences
    return (loader.batch(first // size)[0][: sequences - first] for first in range(0, sequences, size))


def default_sequences(config: GPTConfig) -> int:
    """64 tokens for each input of the widest layer."""
    return math.ceil(TOKENS_PER_INPUT * max(config.dim, config.mlp_hidden) / config.seq_len)


def sequences_per_pass(config: GPTConfig, device: torch.device) -> int:
    """Sequences per pass: 16,384 tokens keep a GPU busy; a CPU is as fast with 2,048, in an eighth of the memory."""
    return max((16_384 if device.type == "cuda" else 2_048) // config.seq_len, 1)


@torch.no_grad()
def own_samples(
    model: GPT, *, sequences: int, batch: int, seed: int = 0, progress: Progress | None = None
) -> Iterator[Tensor]:
    """Batches of ids that the model writes itself, int64 (batch, seq_len): uniform first token, temperature 0.8.

    Each token costs a pass over the whole sequence before it.
    progress: told the number of sequences done and the token being drawn.
    """
    config, device = model.config, model.tok_emb.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    for first in range(0, sequences, batch):
        size = min(batch, sequences - first)
        ids = torch.randint(config.vocab_size, (size, 1), generator=generator, device=device)
        while ids.shape[1] < config.seq_len:
            with autocast(device):
                logits = model.head(model.hidden(ids)[:, -1])
            picked = drawn((logits / TEMPERATURE).softmax(-1), generator)
            ids = torch.cat((ids, picked[:, None]), dim=1)
            if progress:
                progress(first, f"token {ids.shape[1]} of {config.seq_len}")
        yield ids


@dataclass(kw_only=True, slots=True)
class Moments:
    """Sums so far, float32 by tensor name, as `Calibration` has their means.

    inputs, squares: of linear layers; seen: the output vectors that `squares` is a sum over.
    read, lookups: of tables.  fishers: of other parameters.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    read: dict[str, Tensor] = field(default_factory=dict)
    lookups: dict[str, Tensor] = field(default_factory=dict)
    fishers: dict[str, Tensor] = field(default_factory=dict)

    def watch(self, model: GPT, ids_BT: Tensor, generator: torch.Generator) -> None:
        """Add one batch: a pass forward, and one backward to the layers' outputs (never to their weights)."""
        layers = [
            (f"{name}.weight", each)
            for name, each in model.named_modules()
            if isinstance(each, nn.Linear | nn.Embedding)
        ]
        weights = {id(module.weight) for _, module in layers}
        others = {name: weight for name, weight in model.named_parameters() if id(weight) not in weights}
        with self.attached(model, layers, others.values()), torch.enable_grad(), autocast(ids_BT.device):
            hidden_BTD = model.hidden(ids_BT)
            self.add_inputs(HEAD, hidden_BTD)
            logits_BTV = model.head(hidden_BTD)
            chances_NV = logits_BTV.detach().flatten(0, 1).softmax(-1)
            drawn_N = drawn(chances_NV, generator)
            loss = F.cross_entropy(logits_BTV.flatten(0, 1), drawn_N, reduction="sum")
        loss.backward()
        self.add_squares(HEAD, _head_squares(model, logits_BTV.detach().flatten(0, 1), chances_NV))
        self.add_fishers(others)

    def add_fishers(self, others: Mapping[str, nn.Parameter]) -> None:
        """Of a batch whose gradients are there; they are gone afterwards."""
        for name, weight in others.items():
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            self.fishers[name] = self.fishers.get(name, 0) + gradient.float().square()
            weight.grad = None

    def means(self, count: int, sequences: int, tokens: int) -> Calibration:
        """count: of batches.  Raises: InputError naming a tensor whose numbers are not finite."""
        return Calibration(
            hessians={name: _array(name, total / count) for name, total in self.inputs.items()},
            sensitivities={name: _array(name, total / self.seen[name]) for name, total in self.squares.items()},
            gradients={name: _array(name, total / count) for name, total in self.read.items()},
            frequencies={name: _array(name, total / total.sum()) for name, total in self.lookups.items()},
            fishers={name: _array(name, total / count) for name, total in self.fishers.items()},
            sequences=sequences,
            tokens=tokens,
        )

    def add_inputs(self, name: str, x: Tensor) -> None:
        add_moments(self.inputs, name, x.detach())

    def add_squares(self, name: str, squares: Tensor) -> None:
        squares_NR = squares.flatten(0, -2)
        self.squares[name] = self.squares.get(name, 0) + squares_NR.sum(0)
        self.seen[name] = self.seen.get(name, 0) + len(squares_NR)

    def add_lookups(self, name: str, ids: Tensor, rows: int) -> None:
        self.lookups[name] = self.lookups.get(name, 0) + torch.bincount(ids.flatten().long(), minlength=rows)

    def ran(self, name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """A forward hook of a layer or table whose weight has the name."""
        if not output.requires_grad:  # where the graph begins
            output.requires_grad_()
        if isinstance(module, nn.Embedding):
            self.add_lookups(name, inputs[0], module.num_embeddings)
            output.register_hook(lambda gradient: add_moments(self.read, name, gradient))
            return
        self.add_inputs(name, inputs[0])
        output.register_hook(lambda gradient: self.add_squares(name, gradient.float().square()))

    @contextmanager
    def attached(
        self, model: nn.Module, layers: Iterable[tuple[str, nn.Module]], others: Iterable[nn.Parameter]
    ) -> Iterator[None]:
        """Every layer and table reports here; their weights ask for no gradient, their outputs and `others` do."""
        asking = [weight for weight in model.parameters() if weight.requires_grad]
        hooks = [module.register_forward_hook(partial(self.ran, name)) for name, module in layers]
        model.requires_grad_(False)
        for weight in others:
            weight.requires_grad_()
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            model.requires_grad_(False)
            for weight in asking:
                weight.requires_grad_()


def add_moments(totals: dict[str, Tensor], name: str, x: Tensor) -> None:
    """Add sum x x^T over all but the last dimension, float32."""
    x_NC = x.flatten(0, -2).float()
    total = totals.setdefault(name, x_NC.new_zeros(x_NC.shape[1], x_NC.shape[1]))
    total.addmm_(x_NC.T, x_NC)  # in place: autocast leaves it in float32


def drawn(chances_NV: Tensor, generator: torch.Generator) -> Tensor:
    """One id per row, int64 (N,).  torch.multinomial draws V random numbers for each: 14 % of a calibration's time."""
    sums_NV = chances_NV.cumsum(-1)
    levels_N1 = sums_NV[:, -1:] * torch.rand(len(sums_NV), 1, generator=generator, device=sums_NV.device)
    return torch.searchsorted(sums_NV, levels_N1, right=True).clamp_(max=sums_NV.shape[1] - 1).flatten()


def _head_squares(model: GPT, logits_NV: Tensor, chances_NV: Tensor) -> Tensor:
    """(dL/dy)^2 of y = E x before the softcap, in expectation over the targets: p (1 - p) (d logit / dy)^2."""
    temperature = 1.0 if model.logit_temp is None else model.logit_temp.float()
    slope_NV = temperature * (1 - (logits_NV / (model.config.softcap * temperature)).square())
    return chances_NV * (1 - chances_NV) * slope_NV.square()


def _array(name: str, total: Tensor) -> np.ndarray:
    if not total.isfinite().all():
        raise InputError(
            f"the inputs or gradients of tensor `{name}` are not finite", hint="go back to an earlier checkpoint"
        )
    return total.cpu().numpy()
