"""The held-out text a submission is scored on: token shards with proven byte counts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes
from codec.storage.token_shards import open_shard
from verify.scoring.token_bytes import prove


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """tokens: integers (n + 1,).  proof: what verify.scoring.token_bytes.prove found.

    shard_targets: targets the shards hold; more than n when only the first n are scored.
    """

    tokens: np.ndarray
    proof: dict[str, int]
    tokenizer: Path
    tokenizer_sha256: str
    shard_targets: int

    @classmethod
    def read(cls, shards: Sequence[Path], tokenizer: Path, limit: int | None = None) -> "HeldOut":
        """The shards, one after the other, cut to the first `limit` targets if given.

        Raises: InputError for a damaged shard or tokenizer, too few tokens, or bytes that do not add up.
        """
        tokens = np.concatenate([open_shard(path) for path in shards])
        if len(tokens) < 2:
            raise InputError(f"holds {len(tokens)} tokens, scoring needs at least 2", where=str(shards[0]))
        kept = tokens if limit is None else tokens[: limit + 1]
        try:
            proof = prove(kept, tokenizer)
        except InputError as error:
            error.where = error.where or ", ".join(map(str, shards))
            raise
        return cls(
            tokens=kept,
            proof=proof,
            tokenizer=tokenizer,
            tokenizer_sha256=hashlib.sha256(read_bytes(tokenizer)).hexdigest(),
            shard_targets=len(tokens) - 1,
        )

    @property
    def targets(self) -> int:
        """How many targets are scored."""
        return len(self.tokens) - 1

    @property
    def partial(self) -> bool:
        """Whether only the first targets of the shards are scored: never a full score."""
        return self.targets < self.shard_targets
