"""The held-out text a submission is scored on: token shards with proven byte counts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes
from codec.storage.token_shards import open_shard, stated_bytes
from verify.scoring.byte_proof import caseops, doubt, prove, prove_stated
from verify.scoring.token_bytes import BOS, TokenBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """tokens: integers (n + 1,).  token_bytes: int64 (n,), bytes of each target, as sidecars state them where they are.

    proof: what `prove` or `prove_stated` of verify.scoring.byte_proof found.  unproven: why it is no proof, else "".
    shard_targets: targets the shards hold; more than n when only the first n are scored.
    """

    tokens: np.ndarray
    token_bytes: np.ndarray
    proof: dict[str, int]
    unproven: str
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
        end = len(tokens) if limit is None else min(limit + 1, len(tokens))
        kept, stated = tokens[:end], stated_bytes(shards)
        try:
            token_bytes = TokenBytes.from_tokenizer(tokenizer).of(kept, None if stated is None else stated[:end])
            if stated is None:
                proof, unproven = prove(kept, tokenizer), doubt(kept, tokenizer, shards)
            else:
                # A sidecar is right or wrong about whole documents.
                whole = end + int(np.argmax(np.append(tokens[end:], BOS) == BOS))
                proof = prove_stated(tokens[:whole], stated[:whole], tokenizer)
                proof |= {"tokens": end - 1, "bytes": int(token_bytes.sum())}
                unproven = _differing(proof, known=caseops(tokenizer))
        except InputError as error:
            error.where = error.where or ", ".join(map(str, shards))
            raise
        return cls(
            tokens=kept,
            token_bytes=token_bytes,
            proof=proof,
            unproven=unproven,
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


def _differing(proof: dict[str, int], *, known: bool) -> str:
    if not proof["differing"]:
        return ""
    undone = "with CaseOps undone" if known else "as it is, for the inverse of its transform is not known"
    return (
        f"the sidecar's bytes count, and are not those of the decoded text {undone}, in {proof['differing']:,} of "
        f"{proof['documents']:,} documents ({int(proof['bytes']):,} and {int(proof['text_bytes']):,} bytes in all); "
        "the tokenizer may have normalised the text: hold the sidecar's sum against the bytes of the text before "
        "tokenizing, or make both again with `pgolf data`"
    )
