"""Findings and the verdict that follows from them."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from codec.errors import printable
from verify.scoring.sliding import Score
from verify.submission.byte_count import ByteCount

Level = Literal["pass", "fail", "warn", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One checked rule, by its id in docs/rules.md.  unknown: not decided, the message says why.

    A message that quotes a submission cannot act on a terminal or look like two; evidence is for JSON, and as it was.
    """

    rule: str
    level: Level
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", printable(self.message))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found about one submission.  length: of the scored windows, in tokens.

    float_bpb: of the checkpoint, by the same script and scorer.
    """

    findings: tuple[Finding, ...]
    bytes: ByteCount
    scores: tuple[Score, ...]
    length: int | None = None
    float_bpb: float | None = None

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """fail when any finding is; warn and unknown do not fail a submission."""
        return "fail" if any(finding.level == "fail" for finding in self.findings) else "pass"

    @property
    def exit_code(self) -> int:
        """0 for pass, 1 for fail."""
        return 1 if self.verdict == "fail" else 0

    @property
    def penalty(self) -> float | None:
        """Bits per byte that packing cost, when there is a checkpoint to compare with."""
        return None if self.float_bpb is None else self.scores[0].bpb - self.float_bpb

    def to_dict(self) -> dict[str, Any]:
        """The object of `pgolf verify --json`."""
        found: dict[str, Any] = {
            "verdict": self.verdict,
            "findings": [asdict(finding) for finding in self.findings],
            "bytes": self.bytes.to_dict(),
            "scores": [score.to_dict() for score in self.scores],
        }
        if self.float_bpb is not None:
            found |= {"float_bpb": self.float_bpb, "penalty": self.penalty}
        return found
