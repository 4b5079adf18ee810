"""What an audit measures: a scorer's runs over a stream and over changed streams, in one object that checks judge."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from codec.errors import InputError, PgolfError
from codec.progress import Progress
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
from verify.audit.trace import Trace, all_positions, score_difference, trace
from verify.scoring.scorer import Scored, Scorer

STRUCTURE_CUTS = 4  # each with three changes
SHORTEST = 16  # tokens: below there is nothing to cut


class ChangedRun(NamedTuple):
    """A changed stream, what the scorer did with the original, and what with the change."""

    change: Perturbation
    before: Trace
    after: Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """What the auditor knows from elsewhere; None where nobody said.

    artifact_digest: of the artifact's state, from whoever decoded it independently.  observed: the same stream in a
    fresh process.  counted, proven: int64 (n,), bytes of each target, by the scorer, and by a table whose sum was shown
    to be the text's length.
    """

    artifact_digest: str | None = None
    observed: Observation | None = None
    counted: np.ndarray | None = None
    proven: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """All that was measured of one scorer.

    tokens: int64 (n + 1,), the stream.  base: the run all others are compared with.  repeats: the same again, at once
    and after all others.  suffixes, targets, structures: runs in which other tokens stand behind a cut, as one target,
    or in which documents start elsewhere.  shorter: over the first three quarters of the stream.  splits: label -> the
    stream with its windows split in other ways.  round_trip: None when nothing could be coded.  runs: how many in all.
    """

    subject: str
    vocab_size: int
    tokens: np.ndarray
    scope: Scope
    base: Trace
    repeats: tuple[Trace, ...]
    suffixes: tuple[ChangedRun, ...]
    targets: tuple[ChangedRun, ...]
    structures: tuple[ChangedRun, ...]
    shorter: Trace
    splits: dict[str, Trace]
    round_trip: RoundTrip | None
    external: External
    runs: int

    @property
    def noise(self) -> float:
        """Largest difference in nats between two runs over the same tokens; infinite when their positions differ."""
        found = score_difference(self.base, self.repeats[0], all_positions(self.base, self.repeats[0]))
        return found.size if found else 0.0


def measure_scorer(
    scorer: Scorer, tokens: np.ndarray, scope: Scope, external: External, *, progress: Progress | None = None
) -> Measurements:
    """Run a scorer over tokens, integers (n + 1,), and over changed ones, about `expected_runs` times.

    Raises: InputError when the stream is too short, has ids outside the vocabulary, or the scorer fails; UsageError
    when it has too few different ids.
    """
    tokens = np.asarray(tokens).astype(np.int64)
    _check_stream(tokens, scorer)
    expected = expected_runs(scope, scorer.vocab_size)
    counted = _Counted(scorer, progress, expected)
    base = trace(counted, tokens, batch=scope.batch)
    again = trace(counted, tokens, batch=scope.batch)
    splits = {
        "batch 1": trace(counted, tokens, batch=1),
        f"{scope.ranks} ranks": trace(counted, tokens, batch=scope.batch, ranks=scope.ranks),
    }

    def runs(changes: Iterable[Perturbation], *, ranks: int = 1, early: bool = False) -> Iterator[ChangedRun]:
        before = base if ranks == 1 else splits[f"{ranks} ranks"]
        for change in changes:
            until = change.row if early else None
            after = trace(counted, change.tokens, batch=scope.batch, ranks=ranks, until=until)
            yield ChangedRun(change, before, after)

    cuts = choose_cuts(base, tokens, scope)
    rank_splits = {cut: why for cut, why in cuts.items() if why == "rank split"}
    order = _order(base, len(tokens) - 1, scope)
    # With the lengths of a declared queue given, what starts a document is no target to play with.
    fixed = scope.bos if scope.queue else None
    ids = [v for v in range(scorer.vocab_size) if v != fixed]
    summed = choose_sums({cut: why for cut, why in cuts.items() if tokens[cut + 1] != fixed}, scope.sums)
    moved = evenly([cut for cut in cuts if cut < 2 * len(tokens) // 3], STRUCTURE_CUTS)
    found = Measurements(
        subject=scorer.name,
        vocab_size=scorer.vocab_size,
        tokens=tokens,
        scope=scope,
        external=external,
        base=base,
        suffixes=(
            *runs(suffixes(tokens, cuts, order, scope)),
            *runs(suffixes(tokens, rank_splits, order, scope), ranks=scope.ranks),
        ),
        targets=tuple(run for at in summed for run in runs(substitutions(tokens, at, ids), early=True)),
        structures=tuple(runs(structures(tokens, moved, scope))),
        shorter=trace(counted, tokens[: 3 * len(tokens) // 4], batch=scope.batch),
        splits=splits,
        round_trip=round_trip(counted, tokens, base, scope),
        repeats=(again, trace(counted, tokens, batch=scope.batch)),
        runs=counted.runs,
    )
    if progress:
        progress(expected, "")  # about as many
    return found


def expected_runs(scope: Scope, vocab_size: int) -> int:
    """About how often `measure_scorer` runs the scorer, parts of a run included."""
    return scope.cuts + scope.sums * vocab_size + scope.coded + 3 * STRUCTURE_CUTS + 6


class _Counted:
    """The scorer, counting its runs."""

    def __init__(self, scorer: Scorer, progress: Progress | None, most: int) -> None:
        self._scorer, self._progress, self._most, self.runs = scorer, progress, most, 0

    @property
    def name(self) -> str:
        return self._scorer.name

    @property
    def vocab_size(self) -> int:
        return self._scorer.vocab_size

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int = 1) -> Iterator[Scored]:
        self.runs += 1
        if self._progress:
            self._progress(min(self.runs, self._most), "runs")
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
