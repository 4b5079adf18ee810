"""All that one run of a scorer committed, and how two runs differ."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from codec.errors import InputError
from verify.scoring.scorer import Scored, Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The records of a run in the order in which they were fixed; a position scored twice has two.

    positions: int64 (m,).  nats: float64 (m,).  log_probs: float (m, V), None when any batch kept them to itself.
    starts: for each batch its first record.  digests: for each batch the state's name.
    """

    positions: np.ndarray
    nats: np.ndarray
    log_probs: np.ndarray | None
    starts: tuple[int, ...]
    digests: tuple[str, ...]

    def record(self, position: int) -> int | None:
        """Number of the first record of a position."""
        found = np.flatnonzero(self.positions == position)
        return int(found[0]) if len(found) else None

    def batches(self) -> list[np.ndarray]:
        """The positions of each batch."""
        return np.split(self.positions, self.starts[1:])

    def sorted(self) -> "Trace":
        """The records by position, for runs that may split the work differently; without distributions."""
        order = np.argsort(self.positions, kind="stable")
        return replace(self, positions=self.positions[order], nats=self.nats[order], log_probs=None)


def trace(
    scorer: Scorer,
    tokens: np.ndarray,
    *,
    batch: int,
    ranks: int = 1,
    until: int | None = None,
    watch: Callable[[Scored], None] = lambda scored: None,
) -> Trace:
    """Run a scorer over tokens, integers (n + 1,).  until: stop once this position is committed, keep its record only.

    watch: told each batch.

    Raises: InputError when what it gives is not one position, one number and maybe V log-probabilities per target.
    """
    parts: list[Scored] = []
    for part in scorer.run(tokens.copy(), batch=batch, ranks=ranks):  # a copy: it may write into what it is given
        _check(part, scorer, len(tokens) - 1)
        watch(part)
        if until is None:
            parts.append(part)
        elif (part.positions == until).any():
            parts.append(_only(part, until))
            break
    rows = [part.log_probs for part in parts if part.log_probs is not None]
    return Trace(
        positions=_joined([part.positions for part in parts], np.int64),
        nats=_joined([part.nats for part in parts], np.float64),
        log_probs=np.concatenate(rows) if rows and len(rows) == len(parts) else None,
        starts=tuple(np.cumsum([0, *(len(part.positions) for part in parts[:-1])]).tolist()),
        digests=tuple(part.digest for part in parts),
    )


def _only(part: Scored, position: int) -> Scored:
    """One record out of a batch: thousands of such runs must fit into memory."""
    at = np.flatnonzero(part.positions == position)[:1]
    rows = part.log_probs[at] if part.log_probs is not None else None
    return replace(part, positions=part.positions[at], nats=part.nats[at], log_probs=rows)


def _joined(parts: Iterable[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)


def _check(part: Scored, scorer: Scorer, targets: int) -> None:
    count = part.positions.shape
    wanted = {"nats": count, "log_probs": (*count, scorer.vocab_size)}
    shapes = {name: getattr(part, name).shape for name in wanted if getattr(part, name) is not None}
    wrong = [f"{name} {shape}, need {wanted[name]}" for name, shape in shapes.items() if shape != wanted[name]]
    if len(count) != 1 or wrong:
        raise InputError(f"a batch has positions {count} and {', '.join(wrong)}", where=scorer.name)
    if count[0] and not 0 <= part.positions.min() <= part.positions.max() < targets:
        raise InputError(
            f"scored positions {part.positions.min()} to {part.positions.max()}, the stream has 0 to {targets - 1}",
            where=scorer.name,
            hint="position p has the target tokens[p + 1]",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The largest difference between two runs; before and after in nats, changed: how many values differ.

    what: `score`; `distribution`, where v is the id; or `plan`: the runs scored other positions, then position is
    the number of the first record that differs and before and after are positions, -1 for none.
    """

    what: str
    position: int
    before: float
    after: float
    changed: int
    v: int | None = None

    @property
    def size(self) -> float:
        """Nats; infinite when the runs did not even score the same positions, or one value is not a number."""
        size = abs(self.after - self.before)
        return size if self.what != "plan" and size == size else np.inf


def all_positions(*runs: Trace) -> np.ndarray:
    """bool (n,): True for every position that any of the runs scored, and those before."""
    return np.ones(1 + max(int(run.positions.max(initial=0)) for run in runs), bool)


def score_difference(before: Trace, after: Trace, known: np.ndarray, tolerance: float = 0.0) -> Difference | None:
    """Compare the scores of the positions marked in known, bool (n,); None when all are within the tolerance."""
    here, there = known[before.positions], known[after.positions]
    order, other = before.positions[here], after.positions[there]
    if not np.array_equal(order, other):
        at = _first_unequal(order, other)
        have = [float(side[at]) if at < len(side) else -1.0 for side in (order, other)]
        return Difference(what="plan", position=at, before=have[0], after=have[1], changed=1)
    return largest_difference("score", order, before.nats[here], after.nats[there], tolerance)


def row_difference(before: Trace, after: Trace, position: int, tolerance: float = 0.0) -> Difference | None:
    """Compare the distribution at one position; None when equal, or when either run gives none."""
    here, there = before.record(position), after.record(position)
    if before.log_probs is None or after.log_probs is None or here is None or there is None:
        return None
    old, new = before.log_probs[here].astype(np.float64), after.log_probs[there].astype(np.float64)
    found = largest_difference("distribution", np.arange(len(old)), old, new, tolerance)
    return replace(found, position=position, v=found.position) if found else None


def largest_difference(
    what: str, places: np.ndarray, before: np.ndarray, after: np.ndarray, tolerance: float = 0.0
) -> Difference | None:
    """Compare two arrays of nats (k,), the values of places (k,); None when all are within the tolerance.

    What is not a number equals itself.
    """
    with np.errstate(invalid="ignore"):
        sizes = np.abs(after - before)
        same = (before == after) | (np.isnan(before) & np.isnan(after)) | (sizes <= tolerance)
    if same.all():
        return None
    at = int(np.argmax(np.where(same, 0.0, np.where(np.isnan(sizes), np.inf, sizes))))
    return Difference(
        what=what,
        position=int(places[at]),
        before=float(before[at]),
        after=float(after[at]),
        changed=int((~same).sum()),
    )


def _first_unequal(one: np.ndarray, other: np.ndarray) -> int:
    common = min(len(one), len(other))
    unequal = np.flatnonzero(one[:common] != other[:common])
    return int(unequal[0]) if len(unequal) else common
