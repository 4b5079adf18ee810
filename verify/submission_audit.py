"""The audit of a submission's model: scored from here by sliding windows, while it runs in the sandbox."""

from dataclasses import replace

import numpy as np

from codec.errors import InputError
from verify.audit import Audit, Progress, audit
from verify.observation import Observation
from verify.perturbation import Scope
from verify.reload import Settings, running
from verify.remote import Remote
from verify.scorers import Sliding
from verify.submission import Submission
from verify.trace import trace

ONE_SUM = 256  # ids: above, each position summed over the vocabulary is so many runs, so it is one


def audit_submission(
    submission: Submission, tokens: np.ndarray, scope: Scope, settings: Settings, *, progress: Progress | None = None
) -> Audit:
    """Audit the model behind its script's `logits`: does it read ahead, remember, or mix the rows of a batch?

    tokens: integers (n + 1,), a few hundred of the held-out text.  Nats, sums and distributions are made here, so
    what can be found is what the model does with the ids it is sent; adaptive scoring that the script does by itself
    is not used.  settings.length: of the windows, small like the stream.  Of scope, batch and periods are replaced.

    Raises: as `verify.reload.running`; InputError when settings have no length.
    """
    if not settings.length:
        raise InputError("is to be audited with windows of unknown length", where=str(submission.folder))
    scope = replace(scope, batch=settings.batch, periods=(settings.stride, settings.length))
    with running(submission, submission.blob, settings) as model:
        fresh = _observation(model, tokens, submission, settings)
    with running(submission, submission.blob, settings) as model:
        if model.vocab_size > ONE_SUM:
            scope = replace(scope, sums=1)
        found = audit(_scorer(model, submission, settings), tokens, scope, observed=fresh, progress=progress)
    window = {"length": settings.length, "stride": settings.stride, "stated_length": model.length}
    return replace(found, coverage={**found.coverage, "window": window})


def _scorer(model: Remote, submission: Submission, settings: Settings) -> Sliding:
    return Sliding(
        model=model,
        vocab_size=model.vocab_size,
        length=settings.length or 0,
        stride=settings.stride,
        evidence=True,
        name=str(submission.folder),
    )


def _observation(model: Remote, tokens: np.ndarray, submission: Submission, settings: Settings) -> Observation:
    run = trace(_scorer(model, submission, settings), tokens, batch=settings.batch)
    model.refresh()
    return Observation(trace=run, events=tuple(model.attempts), watch="the sandbox", missing=tuple(model.missing))
