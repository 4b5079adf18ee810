"""The audit of a submission's model: scored from here, while it runs and adapts in the sandbox."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from codec.errors import InputError
from codec.progress import Bar, Progress, silent_bar
from verify.audit.fresh_process import Observation
from verify.audit.measurements import expected_runs
from verify.audit.perturbations import Scope
from verify.audit.runner import Audit, audit
from verify.audit.trace import trace
from verify.reveal.stretches import OwnStatement
from verify.sandbox.confine import THREADS
from verify.sandbox.launch import Settings, running
from verify.sandbox.remote_model import Remote
from verify.sandbox.remote_scorers import scorer_of
from verify.scoring.adaptation import ScorerName
from verify.scoring.scorer import Scored, Scorer
from verify.submission.folder import Submission

ONE_SUM = 256  # ids: above, each position summed over the vocabulary is so many runs, so it is one


def audit_submission(
    submission: Submission,
    tokens: np.ndarray,
    scope: Scope,
    settings: Settings,
    *,
    score: ScorerName | None = None,
    bar: Bar = silent_bar,
) -> Audit:
    """Audit the model behind its script's `logits`: does it read ahead, remember, or mix the rows of a batch?

    tokens: integers (n + 1,), a few hundred of the held-out text.  Nats, sums and distributions are made here, so
    what can be found is what the model does with the ids it is sent; adaptive scoring that the script does by itself
    is used as far as it goes through `reveal`.  settings.length: of the windows, small like the stream.  Of scope,
    batch, periods and queue are replaced.  score: None is `own` where the script adapts by itself, else
    `sliding`.  What adapts the model, and when, is decided here; every run begins with the weights as they were loaded.

    First a process scores the text once, as `pgolf verify` does; another one then begins in the same way before it
    sees the text again.  A script that behaves once it notices contradicts what it said until then.  One that behaves
    for longer than the stream is, from the first request on, is not seen here: `pgolf verify` compares what was scored.

    Raises: as `launch.running`; InputError when settings have no length, or the model lacks what score
    needs.
    """
    if not settings.length:
        raise InputError("is to be audited with windows of unknown length", where=str(submission.folder))
    targets = len(tokens) - 1
    with bar("scoring once", targets) as progress, running(submission, submission.blob, settings) as model:
        score = score or ("own" if model.adapts else "sliding")
        first = _scorer(score, model, submission, settings, targets)
        fresh = _observation(model, first, tokens, settings, progress)
        scope = _scope(scope, score, settings, targets, model.statement)
    if first.vocab_size > ONE_SUM:
        scope = replace(scope, sums=1)
    runs = expected_runs(scope, first.vocab_size)
    with bar("auditing", runs) as progress, running(submission, submission.blob, settings) as model:
        scorer = _scorer(score, model, submission, settings, targets, first.vocab_size)
        found = audit(scorer, tokens, scope, observed=fresh, progress=progress)
    window = {"length": settings.length, "stride": settings.stride, "stated_length": model.length}
    return replace(found, coverage={**found.coverage, "window": window, "score": score})


def _scope(scope: Scope, score: ScorerName, settings: Settings, targets: int, statement: OwnStatement | None) -> Scope:
    length = settings.length or 0
    chunk = settings.adaptation.chunk_of(targets, length) if score == "ttt" else None
    scope = replace(scope, batch=settings.batch)
    if score == "own" and statement:
        chunk = statement.targets
        scope = replace(scope, queue=statement.queue)
    return replace(scope, periods=(settings.stride, length, *([chunk] if chunk else [])))


def stated_length(submission: Submission) -> int:
    """The window length that the script itself states once it is loaded, for artifacts that nobody else opens.

    Raises: as `verify.sandbox.launch.running`; InputError when it states none.
    """
    with running(submission, submission.blob, Settings(stride=1)) as model:
        if not model.length:
            raise InputError("says nowhere how long its windows are", where=str(submission.folder), hint="--seq-len N")
        return model.length


class Named:
    """A scorer over a model in another process, whose states are named here, by what they say.

    A digest that the process takes of its own weights proves nothing: the script shares it with whatever takes it, and
    that the question is never part of scoring tells it that it is audited.  So a batch's state is named by the
    distributions that it gave for the batch, over the whole vocabulary: two states are one when nothing that they say
    differs, to the bit.  What does not show in any answer is not named.

    vocab_size: tokens are integers below this; 0: the first answer tells.
    """

    def __init__(self, scorer: Scorer, vocab_size: int) -> None:
        self._scorer, self.name, self.vocab_size = scorer, scorer.name, vocab_size

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int = 1) -> Iterator[Scored]:
        """See `Scorer`."""
        for scored in self._scorer.run(tokens, batch=batch, ranks=ranks):
            said = np.empty((0, 0)) if scored.log_probs is None else scored.log_probs
            self.vocab_size = self.vocab_size or said.shape[1]
            yield replace(scored, digest=hashlib.sha256(np.ascontiguousarray(said).tobytes()).hexdigest())


def _scorer(
    score: ScorerName, model: Remote, submission: Submission, settings: Settings, targets: int, vocab_size: int = 0
) -> Scorer:
    scorer = scorer_of(
        score,
        model,
        settings.adaptation,
        vocab_size=vocab_size,
        targets=targets,
        length=settings.length or 0,
        stride=settings.stride,
        evidence=True,
        name=str(submission.folder),
    )
    return Named(scorer, vocab_size)


def _observation(
    model: Remote, scorer: Scorer, tokens: np.ndarray, settings: Settings, progress: Progress
) -> Observation:
    done = 0

    def count(scored: Scored) -> None:
        nonlocal done
        done += len(scored.positions)
        progress(min(done, len(tokens) - 1), "")

    run = trace(scorer, tokens, batch=settings.batch, watch=count)
    model.refresh()
    missing = tuple(each for each in model.missing if each != THREADS)  # however many, they open no way out
    run = replace(run, digests=())  # other processes may round otherwise; what they say is compared with a tolerance
    return Observation(trace=run, events=tuple(model.attempts), watch="the sandbox", missing=missing)
