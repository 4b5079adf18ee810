"""Held-out text with its bytes counted, and how a model scores on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codec.errors import InputError, UsageError
from codec.storage.token_shards import open_shard, stated_bytes
from verify.scoring.ranks import Ranks
from verify.scoring.score import Score, total
from verify.scoring.scorer import Scorer
from verify.scoring.token_bytes import TokenBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """tokens: integers (n + 1,).  token_bytes: int64 (n,), bytes of each target.  pieces: of the tokenizer.

    shard_targets: targets the shards hold; more than n when only the first n are scored.
    """

    tokens: np.ndarray
    token_bytes: np.ndarray
    pieces: int
    shard_targets: int

    @classmethod
    def read(cls, shards: Sequence[str | Path], tokenizer: str | Path, limit: int | None = None) -> "Validation":
        """The shards, one after the other, cut to the first `limit` targets if given; sidecars state the bytes.

        Raises: InputError for a damaged shard or tokenizer, fewer than two tokens, or bytes that cannot be counted;
        UsageError for a limit below 1.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"--limit-tokens is {limit}, at least 1 target must be scored")
        whole, stated = np.concatenate([open_shard(shard) for shard in shards]), stated_bytes(shards)
        if len(whole) < 2:
            raise InputError(f"holds {len(whole)} tokens, scoring needs at least 2", where=str(shards[0]))
        tokens, table = whole[: None if limit is None else limit + 1], TokenBytes.from_tokenizer(tokenizer)
        token_bytes = table.of(tokens, None if stated is None else stated[: len(tokens)])
        size = len(whole) - 1
        return cls(tokens=tokens, token_bytes=token_bytes, pieces=len(table.length), shard_targets=size)

    @property
    def partial(self) -> str:
        """A line that says so when not all targets are scored."""
        scored = len(self.token_bytes)
        return f"PARTIAL SCORE: the first {scored} of {self.shard_targets} targets" * (scored < self.shard_targets)

    def score(self, scorer: Scorer, *, batch: int, ranks: int | Ranks = 1) -> Score:
        """See `verify.scoring.score.total`."""
        return total(scorer, self.tokens, self.token_bytes, batch=batch, ranks=ranks)


def score_line(label: str, score: Score, length: int, stride: int) -> str:
    """A score in the grammar of the field's logs.  length, stride: of its windows, in tokens."""
    return (
        f"{label} val_loss:{score.loss:.8f} val_bpb:{score.bpb:.8f} tokens:{score.tokens} bytes:{score.bytes} "
        f"seq_len:{length} stride:{stride} eval_time:{1000 * score.seconds:.0f}ms"
    )
