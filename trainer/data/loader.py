"""Training batches from token shards: a pure function of (seed, step), so that a resumed run needs only its step."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.errors import InputError, UsageError
from codec.storage.token_shards import find_shards, open_shard
from trainer.compute.ranks import Ranks

_SAMPLE_TOKENS = 32_768


class Loader:
    """Windows of seq_len + 1 tokens from all `*_train_*.bin` of a folder, joined in the order of their names.

    kind: the order of the windows.
    shuffled     those that tile each shard, in a new random order every epoch
    sequential   one after the other for ever, across shards (162, 339)
    coprime      each shard's at (start + j * stride) modulo their number, start, stride and the place of the first one
                 new every epoch; shards mix in proportion to their length (1176, without its ramp of the mix)

    sequences: windows per step of all ranks together; each rank gets an equal run of them, so the batches do not
    depend on how many ranks there are.
    Raises: InputError for a folder without shards, a damaged shard, or one shorter than a window; UsageError when the
    ranks cannot share the sequences equally.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        kind: str = "shuffled",
        seq_len: int,
        sequences: int,
        vocab_size: int,
        seed: int,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> None:
        if sequences % ranks.world:
            raise UsageError(
                f"a step has {sequences} sequences, {ranks.world} processes cannot share them equally",
                hint="start a number of processes that divides them",
            )
        self.kind, self.seq_len, self.vocab_size, self.seed = kind, seq_len, vocab_size, seed
        self.sequences, self.ranks = sequences, ranks
        self.paths = find_shards(folder, "train")
        self.shards = [open_shard(path) for path in self.paths]
        for path, shard in zip(self.paths, self.shards, strict=True):
            if len(shard) < seq_len + 1:
                raise InputError(
                    f"has {len(shard)} tokens, one training sequence needs {seq_len + 1}",
                    where=str(path),
                    hint="give `pgolf data` more text, or remove this shard",
                )
        self.first = np.cumsum([0] + [len(shard) for shard in self.shards])
        # An epoch of the shuffled and the coprime order.
        self.windows = sum(self.windows_of(shard) for shard in range(len(self.shards)))
        self._epoch, self._starts = -1, np.zeros(0, np.int64)

    @property
    def tokens(self) -> int:
        """Tokens in all shards."""
        return int(self.first[-1])

    def windows_of(self, shard: int) -> int:
        """Windows that tile one shard; the last target of each is the first input of the next."""
        return (len(self.shards[shard]) - 1) // self.seq_len

    def fingerprint(self) -> str:
        """sha256 over names, lengths and the first and last 32,768 tokens of the shards: cheap for any size."""
        digest = hashlib.sha256()
        for path, shard in zip(self.paths, self.shards, strict=True):
            digest.update(f"{path.name} {len(shard)}\n".encode())
            digest.update(shard[:_SAMPLE_TOKENS].tobytes() + shard[-_SAMPLE_TOKENS:].tobytes())
        return digest.hexdigest()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of that step for this rank, each int64 (sequences / world, seq_len).

        Raises: InputError naming the shard and position of an id that the model does not have.
        """
        share = self.sequences // self.ranks.world
        position = step * self.sequences + self.ranks.rank * share
        tokens = torch.from_numpy(np.stack([self._row(self._start(position + i)) for i in range(share)]))
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def _start(self, position: int) -> int:
        """Of the run's window number `position`: its first token in the joined shards."""
        if self.kind == "sequential":
            return position * self.seq_len % self.tokens
        epoch, index = divmod(position, self.windows)
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, _EPOCHS[self.kind](self, epoch)
        return int(self._starts[index])

    def _row(self, start: int) -> np.ndarray:
        """int64 (seq_len + 1,) of the joined shards, which begin anew after the last."""
        parts, missing = [], self.seq_len + 1
        while missing:
            shard = int(np.searchsorted(self.first, start, side="right")) - 1
            inside = start - int(self.first[shard])
            part = self.shards[shard][inside : inside + missing].astype(np.int64)
            if part.max() >= self.vocab_size:
                worst = int(part.argmax())
                raise InputError(
                    f"token {inside + worst} is {part[worst]}, the model knows ids below {self.vocab_size}",
                    where=str(self.paths[shard]),
                    hint="these shards belong to another tokenizer",
                )
            parts.append(part)
            missing -= len(part)
            start = (start + len(part)) % self.tokens
        return np.concatenate(parts)


def _shuffled(data: Loader, epoch: int) -> np.ndarray:
    tiles = [data.first[shard] + np.arange(data.windows_of(shard)) * data.seq_len for shard in range(len(data.shards))]
    return np.concatenate(tiles)[np.random.default_rng((data.seed, epoch)).permutation(data.windows)]


def _coprime(data: Loader, epoch: int) -> np.ndarray:
    """Every shard's walk, merged so that each is spread evenly over the epoch.

    The j-th of n windows falls due at a random moment of the j-th n-th of the epoch.
    """
    due, starts = [], []
    for shard, path in enumerate(data.paths):
        # Names and not paths: the same data in another folder gives the same batches.
        name = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], "little")
        random = np.random.default_rng((data.seed, epoch, name))
        count, steps = data.windows_of(shard), np.arange(data.windows_of(shard))
        phase = random.integers(len(data.shards[shard]) - count * data.seq_len)
        blocks = (random.integers(count) + steps * _stride(random, count)) % count
        starts.append(data.first[shard] + phase + blocks * data.seq_len)
        due.append((steps + random.random(count)) / count)
    return np.concatenate(starts)[np.argsort(np.concatenate(due), kind="stable")]


def _stride(random: np.random.Generator, count: int) -> int:
    """A step that visits every one of `count` places once."""
    stride = 0
    while math.gcd(stride, count) != 1:
        stride = int(random.integers(1, count + 1))
    return stride


_EPOCHS: dict[str, Callable[[Loader, int], np.ndarray]] = {"shuffled": _shuffled, "coprime": _coprime}
