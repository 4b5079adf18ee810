"""Training batches from token shards: a pure function of (seed, step), so that a resumed run needs only its step."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.errors import InputError
from codec.shards import find_shards, open_shard

_SAMPLE_TOKENS = 32_768


class Loader:
    """Windows of seq_len + 1 tokens from all `*_train_*.bin` of a folder, in a new random order every epoch.

    Each window starts where the one before ends, so every token but a shard's tail is an input once per epoch.
    Raises: InputError for a folder without shards, a damaged shard, or one shorter than a window.
    """

    def __init__(self, folder: str | Path, *, seq_len: int, sequences: int, vocab_size: int, seed: int) -> None:
        self.paths = find_shards(folder, "train")
        self.shards = [open_shard(path) for path in self.paths]
        self.seq_len, self.sequences, self.vocab_size, self.seed = seq_len, sequences, vocab_size, seed
        for path, shard in zip(self.paths, self.shards, strict=True):
            if len(shard) < seq_len + 1:
                raise InputError(
                    f"has {len(shard)} tokens, one training sequence needs {seq_len + 1}",
                    where=str(path),
                    hint="give `pgolf data` more text, or remove this shard",
                )
        self.first = np.cumsum([0] + [(len(shard) - 1) // seq_len for shard in self.shards])
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    @property
    def windows(self) -> int:
        """Windows per epoch."""
        return int(self.first[-1])

    @property
    def tokens(self) -> int:
        """Tokens in all shards."""
        return sum(len(shard) for shard in self.shards)

    def fingerprint(self) -> str:
        """sha256 over names, lengths and the first and last 32,768 tokens of the shards: cheap for any size."""
        digest = hashlib.sha256()
        for path, shard in zip(self.paths, self.shards, strict=True):
            digest.update(f"{path.name} {len(shard)}\n".encode())
            digest.update(shard[:_SAMPLE_TOKENS].tobytes() + shard[-_SAMPLE_TOKENS:].tobytes())
        return digest.hexdigest()

    def windows_of(self, step: int) -> list[tuple[int, int]]:
        """(shard index, first token) of each sequence of that step."""
        found = []
        for position in range(step * self.sequences, (step + 1) * self.sequences):
            epoch, index = divmod(position, self.windows)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.windows)
            window = int(self._order[index])
            shard = int(np.searchsorted(self.first, window, side="right")) - 1
            found.append((shard, (window - int(self.first[shard])) * self.seq_len))
        return found

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of that step, each int64 (sequences, seq_len).

        Raises: InputError naming the shard and position of an id that the model does not have.
        """
        rows = [self._row(shard, start) for shard, start in self.windows_of(step)]
        tokens = torch.from_numpy(np.stack(rows))
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def _row(self, shard: int, start: int) -> np.ndarray:
        row = self.shards[shard][start : start + self.seq_len + 1].astype(np.int64)
        if row.max() >= self.vocab_size:
            worst = int(row.argmax())
            raise InputError(
                f"token {start + worst} is {row[worst]}, the model knows ids below {self.vocab_size}",
                where=str(self.paths[shard]),
                hint="these shards belong to another tokenizer",
            )
        return row
