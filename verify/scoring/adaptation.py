"""The scorers that a submission's model can be scored by from outside, and how those that adapt do it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

ScorerName = Literal["sliding", "own", "ttt", "slot"]
RECORD_CHUNK = 32768  # targets, of every record since pull request 461
LEAST_CHUNKS = 16  # of a short text: with fewer, too little of it is scored by weights that have learned


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """How ttt and slot adapt; see `ScoreFirst` and `ContextSlot`, whose defaults these are.

    chunk: targets; None is 32,768, or a 16th of a shorter text in whole sequences.  update: `sgd` or `muon`.
    """

    chunk: int | None = None
    epochs: int = 3
    sequences: int = 32
    lr: float = 0.005
    update: str = "sgd"
    frozen_blocks: int = 0
    slot_steps: int = 5
    slot_lr: float = 0.003

    def chunk_of(self, targets: int, length: int) -> int:
        """Targets of a chunk, for a text of so many targets and windows of so many tokens."""
        return self.chunk or max(min(RECORD_CHUNK, targets // LEAST_CHUNKS) // length, 1) * length

    def to_dict(self, targets: int, length: int) -> dict[str, Any]:
        """The settings with the chunk that they come to, for JSON."""
        return {**asdict(self), "chunk": self.chunk_of(targets, length)}
