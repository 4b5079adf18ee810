"""The audit: measure a scorer, judge it by every check that is registered, and say with which coverage."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codec.html import Shown
from codec.progress import Progress
from verify.audit import accounting_rules, causality_rules  # noqa: F401  they register their checks
from verify.audit.checks import audit_judges
from verify.audit.fresh_process import Observation
from verify.audit.measurements import External, Measurements, measure_scorer
from verify.audit.perturbations import Scope
from verify.finding import Finding
from verify.rules import RULES
from verify.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(Shown):
    """What was found about one scorer, and how: tokens, cuts, runs.

    It never says that a scorer is legal: without a `fail`, no violation was found with what was tried.
    """

    subject: str
    findings: tuple[Finding, ...]
    coverage: dict[str, Any]

    @property
    def violations(self) -> tuple[Finding, ...]:
        """The findings that fail."""
        return tuple(finding for finding in self.findings if finding.level == "fail")

    @property
    def exit_code(self) -> int:
        """1 with a violation."""
        return 1 if self.violations else 0

    @property
    def verdict(self) -> str:
        """One line; names what could not be decided."""
        if self.violations:
            return "violation: " + ", ".join(finding.rule for finding in self.violations)
        undecided = [finding.rule for finding in self.findings if finding.level == "unknown"]
        return "no violation found" + (f"; not decided: {', '.join(undecided)}" if undecided else "")

    def to_dict(self) -> dict[str, Any]:
        """The object of `pgolf audit --json`."""
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "findings": [asdict(finding) for finding in self.findings],
            "coverage": self.coverage,
        }


def audit(
    scorer: Scorer,
    tokens: np.ndarray,
    scope: Scope,
    *,
    artifact_digest: str | None = None,
    observed: Observation | None = None,
    counted: np.ndarray | None = None,
    proven: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit a scorer on a short stream, integers (n + 1,): real text, several documents, a few hundred tokens.

    The scorer runs about `measurements.expected_runs` times, so its windows and chunks are to be scaled down with the
    stream.  artifact_digest, observed, counted, proven: as in `External`; checks that lack theirs are `unknown`.

    Raises: as `measurements.measure_scorer`.
    Source: issue 1017 of openai/parameter-golf for the four conditions (causal, normalized, score first, one pass).
    """
    external = External(artifact_digest=artifact_digest, observed=observed, counted=counted, proven=proven)
    measured = measure_scorer(scorer, tokens, scope, external, progress=progress)
    coverage = {
        "targets": len(measured.tokens) - 1,
        "vocab_size": measured.vocab_size,
        "runs": measured.runs,
        "documents": int((measured.tokens == scope.bos).sum()),
        "scope": asdict(scope),
    }
    return Audit(subject=measured.subject, findings=_findings(measured), coverage=coverage)


def _findings(measured: Measurements) -> tuple[Finding, ...]:
    """One of every check, in the order of the table of rules."""
    order = list(RULES)
    return tuple(sorted(audit_judges.judge(measured), key=lambda finding: order.index(finding.rule)))
