"""Findings and the verdict that follows from them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from verify.finding import Finding
from verify.scoring.score import Score
from verify.submission.byte_count import ByteCount


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
