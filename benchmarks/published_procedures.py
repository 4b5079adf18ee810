"""The published procedures of pull requests 162, 339 and 1176, to reproduce their numbers; none of them is legal.

    python -m benchmarks.published_procedures CHECKPOINT --data DIR --pull-request 1176

They are no `Scorer`s (they offer `replay`, not `run`) and add up to a `Replay`, not a `Score`: no verdict can hold one.
"""

import copy
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from codec.errors import PgolfError, UsageError
from codec.storage.token_shards import find_shards, find_tokenizer
from pgolf.checkpoints import read_model
from pgolf.console import json_option, print_json, print_table
from trainer.model.gpt import GPT, GPTConfig
from trainer.presets.published_layouts import check_shapes
from verify.scoring.heldout import HeldOut
from verify.scoring.ranks import Ranks
from verify.scoring.scorer import Scored
from verify.scoring.slot import fit_shift
from verify.scoring.token_stream import predict
from verify.scoring.ttt import BLOCK, Frozen, Learner, Orthogonal, Update, by_chunk, cosine
from verify.scoring.windows import Window, batches

TAIL = "C4: the last targets are counted again in every window that ends with the text"
REUSED = "C1, C3, C4: the weights were trained on the targets they score"
SHARED = "C1, C2: one shift for a batch of windows is fitted to the targets that it then scores"
RECORD_UPDATE = Orthogonal(dtype=torch.bfloat16)
NEVER = "replays of what was published; none is legal, and none can enter a verdict"
COLUMNS = ("pull request", "procedure", "bpb", "nats per token", "tokens counted", "again", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a published procedure reports; never legal.

    nats, tokens, bytes: as it counts them.  repeated: scores beyond the first of a target.  missing: targets without.
    """

    procedure: str
    violations: tuple[str, ...]
    nats: float
    tokens: int
    bytes: int
    windows: int
    repeated: int
    missing: int

    @property
    def legal(self) -> Literal[False]:
        """Whatever the numbers."""
        return False

    @property
    def loss(self) -> float:
        """Nats per counted token."""
        return self.nats / self.tokens

    @property
    def bpb(self) -> float:
        """Bits per counted byte."""
        return self.nats / math.log(2) / self.bytes

    def to_dict(self) -> dict[str, Any]:
        """The fields with loss, bpb and legal, for JSON."""
        return {**asdict(self), "loss": self.loss, "bpb": self.bpb, "legal": self.legal}


class Published(Protocol):
    """A procedure that was published, with the rules it breaks."""

    @property
    def name(self) -> str:
        """For tables."""

    @property
    def violations(self) -> tuple[str, ...]:
        """Condition and reason, one sentence each."""

    def replay(self, tokens: np.ndarray, *, batch: int) -> Iterator[Scored]:
        """tokens: integers (n + 1,).  A position comes as often as the procedure scores it."""


def add_up(procedure: Published, tokens: np.ndarray, token_bytes: np.ndarray, *, batch: int) -> Replay:
    """Replay a procedure over the text; token_bytes: int64 (n,), bytes of each target."""
    nats, size, windows, times = 0.0, 0, 0, np.zeros(len(tokens) - 1, np.int64)
    for scored in procedure.replay(tokens, batch=batch):
        np.add.at(times, scored.positions, 1)
        nats += float(scored.nats.sum())
        size += int(token_bytes[scored.positions].sum())
        windows += scored.windows
    return Replay(
        procedure=procedure.name,
        violations=procedure.violations,
        nats=nats,
        tokens=int(times.sum()),
        bytes=size,
        windows=windows,
        repeated=int(np.maximum(times - 1, 0).sum()),
        missing=int((times == 0).sum()),
    )


def repeated_tail(targets: int, length: int, stride: int, *, shortest: int = 1) -> list[Window]:
    """A window at every multiple of the stride; each scores its last `stride` positions, the first one all.

    shortest: windows with fewer positions are left out.  At the end of the text several windows stop together, so
    their last positions are scored again: length / stride - 1 times when the stride divides both.

    Source: pull requests 162, 339, 1176; `shortest` = stride in the test-time training of 549 and 1176.
    """
    windows = []
    for start in range(0, targets, stride):
        stop = min(start + length, targets)
        if start == 0 or stop - start >= shortest:
            windows.append(Window(start, stop, max(stop - stride, start) if start else 0))
    return windows


@dataclass(frozen=True, slots=True, kw_only=True)
class TailAgain:
    """Sliding windows of 162, 339 and 1176: fixed weights, the tail counted again."""

    model: Any
    length: int
    stride: int
    name: str = "legacy-sliding"
    violations: tuple[str, ...] = (TAIL,)

    def replay(self, tokens: np.ndarray, *, batch: int) -> Iterator[Scored]:
        """See `Published`."""
        ids = _ids(tokens)
        return _scores(self.model, ids, repeated_tail(len(ids) - 1, self.length, self.stride), batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class TttTailAgain:
    """Test-time training of 1176 (and, with `Momentum`, 549): score first, but the tail is counted again.

    Blocks are frozen by name, which misses their matrices: those are in banks with names of their own.
    """

    model: nn.Module
    length: int
    stride: int
    chunk: int = 32768
    epochs: int = 3
    sequences: int = 32
    lr: float = 0.002
    update: Update = RECORD_UPDATE
    clip: float = 1.0
    frozen_blocks: int = 2
    name: str = "legacy-ttt"
    violations: tuple[str, ...] = (TAIL,)

    def replay(self, tokens: np.ndarray, *, batch: int) -> Iterator[Scored]:
        """See `Published`."""
        return self.teach(self.learner(), tokens, batch=batch)

    def learner(self) -> Learner:
        """The copy that the procedure trains."""
        frozen = vectors_of_first_blocks(self.model, self.frozen_blocks)
        return Learner(self.model, update=self.update, clip=self.clip, frozen=frozen)

    def teach(self, learner: Learner, tokens: np.ndarray, *, batch: int) -> Iterator[Scored]:
        """Replay with a learner that is at hand afterwards."""
        ids = _ids(tokens)
        targets = len(ids) - 1
        windows = repeated_tail(targets, self.length, self.stride, shortest=self.stride)
        chunks = by_chunk(windows, targets, self.chunk)
        for number, members in enumerate(chunks):
            yield from _scores(learner.model, ids, members, batch)
            if number + 1 < len(chunks):
                learner.train(
                    ids[number * self.chunk : (number + 1) * self.chunk + 1],
                    length=self.length,
                    epochs=self.epochs,
                    sequences=self.sequences,
                    lr=self.lr * cosine(number, len(chunks)),
                    ranks=Ranks(),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotOnScored:
    """SLOT of 1176: for each batch of windows one shift, fitted to all their targets, those to be scored included.

    Short windows are padded with token 0, and the padding is fitted to as well.  projection: dtype of the hidden
    states and the output matrix.
    """

    model: nn.Module
    length: int
    stride: int
    steps: int = 5
    lr: float = 0.003
    projection: torch.dtype = torch.bfloat16
    name: str = "legacy-slot"
    violations: tuple[str, ...] = (TAIL, SHARED)

    def replay(self, tokens: np.ndarray, *, batch: int) -> Iterator[Scored]:
        """See `Published`; a shift is shared by `batch` windows, 32 in the record."""
        ids, projector = _ids(tokens), copy.deepcopy(self.model).to(self.projection)
        windows = repeated_tail(len(ids) - 1, self.length, self.stride)

        def head(hidden: Tensor) -> Tensor:
            logits: Tensor = projector.head(hidden.to(self.projection))  # type: ignore[operator]
            return logits

        for first in range(0, len(windows), batch):
            yield self._batch(head, ids, windows[first : first + batch])

    def _batch(self, head: Callable[[Tensor], Tensor], ids: Tensor, windows: list[Window]) -> Scored:
        inputs, targets = torch.zeros(2, len(windows), self.length, dtype=torch.int64)
        for row, window in enumerate(windows):
            inputs[row, : window.stop - window.start] = ids[window.start : window.stop]
            targets[row, : window.stop - window.start] = ids[window.start + 1 : window.stop + 1]
        with torch.no_grad():
            hidden: Tensor = self.model.hidden(inputs)  # type: ignore[operator]
        everything = hidden.reshape(1, -1, hidden.shape[-1])
        shift = fit_shift(head, everything, targets.reshape(1, -1), steps=self.steps, lr=self.lr)
        with torch.no_grad():
            nats = _nats(head(hidden + shift), targets)
        scored = [slice(w.first_scored - w.start, w.stop - w.start) for w in windows]
        return Scored(
            positions=np.concatenate([np.arange(w.first_scored, w.stop) for w in windows]),
            nats=torch.cat([row[part] for row, part in zip(nats, scored, strict=True)]).numpy(),
            windows=len(windows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotAfterTtt:
    """The headline of 1176: test-time training over the whole text, then SLOT with the weights it left behind."""

    ttt: TttTailAgain
    slot: SlotOnScored
    name: str = "legacy-ttt-slot"
    violations: tuple[str, ...] = (REUSED, TAIL, SHARED)

    def replay(self, tokens: np.ndarray, *, batch: int) -> Iterator[Scored]:
        """See `Published`; the scores of the training pass are left out, as the record's headline does."""
        learner = self.ttt.learner()
        for _ in self.ttt.teach(learner, tokens, batch=batch):
            pass
        yield from replace(self.slot, model=learner.model).replay(tokens, batch=batch)


def vectors_of_first_blocks(model: nn.Module, blocks: int) -> Frozen:
    """What 1176 froze: of the first blocks all that is no weight of a linear layer."""
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = {name: BLOCK.search(name) for name, _ in model.named_parameters() if name not in linear}
    return {name: [slice(None)] for name, match in found.items() if match and int(match[1]) < blocks}


@torch.no_grad()
def _scores(model: Any, ids: Tensor, windows: list[Window], batch: int) -> Iterator[Scored]:
    for group in batches(windows, batch):
        inputs = torch.stack([ids[window.start : window.stop] for window in group])
        targets = torch.stack([ids[window.first_scored + 1 : window.stop + 1] for window in group])
        yield Scored(
            positions=np.concatenate([np.arange(window.first_scored, window.stop) for window in group]),
            nats=_nats(predict(model, inputs, group[0].first_scored - group[0].start), targets).flatten().numpy(),
            windows=len(group),
        )


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    losses = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return losses.double().view_as(targets)


def _ids(tokens: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(tokens).astype(np.int64))


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder with *_val_*.bin and *.model.")
@click.option(
    "--pull-request",
    "pull_requests",
    multiple=True,
    type=click.Choice(["162", "339", "1176"]),
    default=("162", "339", "1176"),
    help="Whose procedures; repeat it.  [default: all three]",
)
@click.option("--seq-len", type=click.IntRange(min=1), help="Windows, in tokens; default: the model's own.")
@click.option("--stride", type=click.IntRange(min=1), default=64, show_default=True, help="Targets scored by each.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Windows at a time.")
@click.option("--limit-tokens", type=click.IntRange(min=1), help="Only the first targets of the text.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: torch's own.")
@json_option
def bench(
    checkpoint: Path,
    data: Path,
    pull_requests: tuple[str, ...],
    seq_len: int | None,
    stride: int,
    batch: int,
    limit_tokens: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Replay on CHECKPOINT, in float32 on the CPU, what pull requests 162, 339 and 1176 published as their scores.

    162 and 339: sliding windows that count the tail again. 1176: the same, its test-time training, its SLOT, and the
    headline, SLOT after training. A replay is never legal and can never enter a verdict: `pgolf verify` has no way
    to take one.
    """
    if threads:
        torch.set_num_threads(threads)
    model = _model(checkpoint)
    heldout = HeldOut.read(find_shards(data, "val"), find_tokenizer(data), limit_tokens)
    if int(heldout.tokens.max()) >= model.config.vocab_size:
        raise UsageError(
            f"has token ids up to {heldout.tokens.max()}, the model a vocabulary of {model.config.vocab_size}",
            where=str(data),
        )
    length = seq_len or model.config.seq_len
    replays = [
        (pull_request, add_up(procedure, heldout.tokens, heldout.token_bytes, batch=batch))
        for pull_request in dict.fromkeys(pull_requests)
        for procedure in published(pull_request, model, length, stride)
    ]
    if as_json:
        found = [{"pull_request": name, **replay.to_dict()} for name, replay in replays]
        print_json({"note": NEVER, "legal": False, "length": length, "stride": stride, "replays": found})
        return
    rows = [
        (
            name,
            replay.procedure,
            f"{replay.bpb:.8f}",
            f"{replay.loss:.8f}",
            f"{replay.tokens:,}",
            f"{replay.repeated:,}",
            f"{replay.missing:,}",
        )
        for name, replay in replays
    ]
    print_table(rows, COLUMNS)
    click.echo()
    for procedure, violations in {replay.procedure: replay.violations for _, replay in replays}.items():
        click.echo(f"{procedure} breaks {'; '.join(violations)}")
    click.echo(f"\n{NEVER}")


def published(pull_request: str, model: nn.Module, length: int, stride: int) -> list[Published]:
    """What a pull request scored with, its headline last."""
    sliding = TailAgain(model=model, length=length, stride=stride)
    if pull_request != "1176":
        return [sliding]
    ttt = TttTailAgain(model=model, length=length, stride=stride)
    slot = SlotOnScored(model=model, length=length, stride=stride)
    return [sliding, ttt, slot, SlotAfterTtt(ttt=ttt, slot=slot)]


def _model(checkpoint: Path) -> GPT:
    imported = read_model(checkpoint)
    config = GPTConfig.from_dict(imported.metadata["config"])
    check_shapes(config, {name: array.shape for name, array in imported.tensors.items()})
    model = GPT(config)
    model.load_state_dict({name: torch.tensor(array) for name, array in imported.tensors.items()})
    return model.eval()


if __name__ == "__main__":
    try:
        bench.main(standalone_mode=False)
    except (PgolfError, click.ClickException) as error:
        sys.exit(f"Error: {error}")
