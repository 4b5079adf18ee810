"""Findings and the verdict that follows from them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from codec.html import Shown
from verify.finding import Finding, Level, worst
from verify.scoring.score import Score
from verify.submission.byte_count import ByteCount


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Shown):
    """What was found about one submission.  length: of the scored windows, in tokens.

    float_bpb: of the checkpoint, by the same script and scorer.  own: how the script adapts by itself, if it does.
    """

    findings: tuple[Finding, ...]
    bytes: ByteCount
    scores: tuple[Score, ...]
    length: int | None = None
    float_bpb: float | None = None
    own: dict[str, Any] | None = None

    @property
    def verdict(self) -> Literal["pass", "fail", "unknown"]:
        """fail when any finding is; no other level fails a submission.  unknown when nothing was scored."""
        if any(finding.level == "fail" for finding in self.findings):
            return "fail"
        return "pass" if self.scores else "unknown"

    @property
    def exit_code(self) -> int:
        """0 for pass, 1 for fail."""
        return 1 if self.verdict == "fail" else 0

    @property
    def checked(self) -> tuple[str, ...]:
        """Rules that were checked and hold."""
        return self._rules("pass")

    @property
    def not_stated(self) -> tuple[str, ...]:
        """Rules about claims that nobody made."""
        return self._rules("not stated")

    @property
    def undecided(self) -> tuple[str, ...]:
        """Rules that could not be decided; their findings say why."""
        return self._rules("unknown")

    @property
    def warned(self) -> tuple[str, ...]:
        """Rules whose findings somebody should look at."""
        return self._rules("warn")

    @property
    def failed(self) -> tuple[str, ...]:
        """Rules that are broken."""
        return self._rules("fail")

    @property
    def headline(self) -> Score | None:
        """The score that counts: by the script's own adaptation where it has one, else the first, by fixed weights."""
        return next((score for score in self.scores if score.scorer == "own"), next(iter(self.scores), None))

    @property
    def penalty(self) -> float | None:
        """Bits per byte that packing cost, when there is a checkpoint to compare with."""
        return None if self.float_bpb is None else self.scores[0].bpb - self.float_bpb

    def to_dict(self) -> dict[str, Any]:
        """The object of `pgolf verify --json`."""
        found: dict[str, Any] = {
            "verdict": self.verdict,
            "checked": list(self.checked),
            "not_stated": list(self.not_stated),
            "undecided": list(self.undecided),
            "warned": list(self.warned),
            "failed": list(self.failed),
            "findings": [asdict(finding) for finding in self.findings],
            "bytes": self.bytes.to_dict(),
            "scores": [score.to_dict() for score in self.scores],
        }
        if self.headline:
            found["headline"] = self.headline.scorer
        if self.own:
            found["own"] = self.own
        if self.float_bpb is not None:
            found |= {"float_bpb": self.float_bpb, "penalty": self.penalty}
        return found

    def _rules(self, level: Level) -> tuple[str, ...]:
        """Rules whose most serious finding has this level, in the order of the findings."""
        levels: dict[str, list[Level]] = {}
        for finding in self.findings:
            levels.setdefault(finding.rule, []).append(finding.level)
        return tuple(rule for rule, found in levels.items() if worst(found) == level)
