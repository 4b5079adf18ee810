"""The audit: does a scorer read ahead, remember, or count wrongly?  Changed streams must not change its scores.

>>> from verify.audit import Scope, expected_runs
>>> expected_runs(Scope(cuts=10, sums=2, coded=8), vocab_size=64)
164
"""

from typing import TYPE_CHECKING

from codec.lazy import lazy

if TYPE_CHECKING:
    from verify.audit.measurements import expected_runs
    from verify.audit.perturbations import Scope
    from verify.audit.runner import Audit, audit
    from verify.audit.submission_audit import audit_submission
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "verify.audit.perturbations": ("Scope",),
            "verify.audit.measurements": ("expected_runs",),
            "verify.audit.runner": ("Audit", "audit"),
            "verify.audit.submission_audit": ("audit_submission",),
        },
    )

__all__ = ["Audit", "Scope", "audit", "audit_submission", "expected_runs"]
