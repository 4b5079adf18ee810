"""The audit: run a scorer over a stream and over changed streams, and say what was found with which coverage."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codec.errors import InputError, PgolfError
from codec.progress import Progress
from verify.audit import accounting_rules as accounts
from verify.audit import causality_rules as checks
from verify.audit.fresh_process import Observation
from verify.audit.perturbations import (
    Perturbation,
    Scope,
    choose_cuts,
    choose_sums,
    evenly,
    structures,
    substitutions,
    suffixes,
)
from verify.audit.round_trip import RoundTrip, round_trip
from verify.audit.trace import Trace, trace
from verify.finding import Finding
from verify.scoring.scorer import Scored, Scorer

STRUCTURE_CUTS = 4  # each with three changes
SHORTEST = 16  # tokens: below there is nothing to cut
Runs = tuple[checks.Run, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Experiments:
    """base: the run all others are compared with.  repeats: the same again, at once and after all others."""

    base: Trace
    repeats: tuple[Trace, ...]
    suffix: Runs
    target: Runs
    structure: Runs
    shorter: Trace
    split: dict[str, Trace]
    trip: RoundTrip | None


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

    The scorer runs about `expected_runs` times, so its windows and chunks are to be scaled down with the stream.
    artifact_digest: the digest of the artifact's state.  observed: the same stream in a fresh process, see
    verify.audit.fresh_process.  counted, proven: int64 (n,), bytes of each target, the scorer's and those of the text.

    Raises: InputError when the stream is too short, has ids outside the vocabulary, or the scorer fails; UsageError
    when it has too few different ids.
    Source: issue 1017 of openai/parameter-golf for the four conditions (causal, normalized, score first, one pass).
    """
    tokens = np.asarray(tokens).astype(np.int64)
    _check_stream(tokens, scorer)
    audited = _Audited(scorer, progress)
    found = _experiments(audited, tokens, scope)
    noise = checks.noise_level(found.base, found.repeats[0])
    everywhere = {"base": found.base, **found.split}
    findings = (
        checks.check_determinism(found.base, found.repeats),
        checks.check_prefix(found.suffix, noise),
        checks.check_self_target(found.target, noise),
        checks.check_kraft(found.target, whole=not scope.queue),
        checks.check_normalization(found.base, tokens),
        accounts.check_coverage(everywhere, len(tokens) - 1, queue=scope.queue),
        accounts.check_state(found.base, found.suffix, artifact_digest),
        accounts.check_batch(found.base, found.split, noise),
        checks.check_structure(found.base, found.structure, found.shorter, noise, queue=scope.queue),
        accounts.check_codec(found.trip, noise),
        accounts.check_side_channel(observed),
        accounts.check_fresh_process(found.base, observed),
        accounts.check_bytes(counted, proven),
    )
    coverage = {
        "targets": len(tokens) - 1,
        "vocab_size": scorer.vocab_size,
        "runs": audited.runs,
        "documents": int((tokens == scope.bos).sum()),
        "scope": asdict(scope),
    }
    return Audit(subject=scorer.name, findings=findings, coverage=coverage)


def expected_runs(scope: Scope, vocab_size: int) -> int:
    """About how often an audit runs the scorer, parts of a run included."""
    return scope.cuts + scope.sums * vocab_size + scope.coded + 3 * STRUCTURE_CUTS + 6


def _experiments(scorer: Scorer, tokens: np.ndarray, scope: Scope) -> _Experiments:
    """All the runs."""
    base = trace(scorer, tokens, batch=scope.batch)
    again = trace(scorer, tokens, batch=scope.batch)
    split = {
        "batch 1": trace(scorer, tokens, batch=1),
        f"{scope.ranks} ranks": trace(scorer, tokens, batch=scope.batch, ranks=scope.ranks),
    }

    def runs(changes: Iterable[Perturbation], *, ranks: int = 1, early: bool = False) -> Iterator[checks.Run]:
        before = base if ranks == 1 else split[f"{ranks} ranks"]
        for change in changes:
            until = change.row if early else None
            after = trace(scorer, change.tokens, batch=scope.batch, ranks=ranks, until=until)
            yield checks.Run(change, before, after)

    cuts = choose_cuts(base, tokens, scope)
    splits = {cut: why for cut, why in cuts.items() if why == "rank split"}
    order = _order(base, len(tokens) - 1, scope)
    # With the lengths of a declared queue given, what starts a document is no target to play with.
    fixed = scope.bos if scope.queue else None
    ids = [v for v in range(scorer.vocab_size) if v != fixed]
    summed = choose_sums({cut: why for cut, why in cuts.items() if tokens[cut + 1] != fixed}, scope.sums)
    moved = evenly([cut for cut in cuts if cut < 2 * len(tokens) // 3], STRUCTURE_CUTS)
    return _Experiments(
        base=base,
        suffix=(
            *runs(suffixes(tokens, cuts, order, scope)),
            *runs(suffixes(tokens, splits, order, scope), ranks=scope.ranks),
        ),
        target=tuple(run for at in summed for run in runs(substitutions(tokens, at, ids), early=True)),
        structure=tuple(runs(structures(tokens, moved, scope))),
        shorter=trace(scorer, tokens[: 3 * len(tokens) // 4], batch=scope.batch),
        split=split,
        trip=round_trip(scorer, tokens, base, scope),
        repeats=(again, trace(scorer, tokens, batch=scope.batch)),
    )


class _Audited:
    """The scorer, counting its runs."""

    def __init__(self, scorer: Scorer, progress: Progress | None) -> None:
        self._scorer, self._progress, self.runs = scorer, progress, 0

    @property
    def name(self) -> str:
        return self._scorer.name

    @property
    def vocab_size(self) -> int:
        return self._scorer.vocab_size

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int = 1) -> Iterator[Scored]:
        self.runs += 1
        if self._progress:
            self._progress(self.runs, "runs")
        try:
            yield from self._scorer.run(tokens, batch=batch, ranks=ranks)
        except (PgolfError, OSError, EOFError):  # the last two: a model in another process is gone, its owner says why
            raise
        except Exception as error:
            message = f"failed in run {self.runs} with {type(error).__name__}: {error}"
            raise InputError(message[:500], where=self.name, hint="it must take any ids of its vocabulary") from error


def _check_stream(tokens: np.ndarray, scorer: Scorer) -> None:
    if tokens.ndim != 1 or len(tokens) < SHORTEST:
        raise InputError(f"the stream has shape {tokens.shape}, an audit needs at least {SHORTEST} tokens in a row")
    if not 0 <= tokens.min() <= tokens.max() < scorer.vocab_size:
        raise InputError(
            f"token ids span {tokens.min()} to {tokens.max()}, the scorer has {scorer.vocab_size}",
            where=scorer.name,
            hint="audit on tokens of the scorer's own vocabulary",
        )


def _order(base: Trace, targets: int, scope: Scope) -> np.ndarray:
    """Positions in the order of a declared queue, if base scores each once; else that of the stream."""
    if scope.queue and np.array_equal(np.sort(base.positions), np.arange(targets)):
        return base.positions
    return np.arange(targets)
