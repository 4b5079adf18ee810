"""What an audit concludes about causality and probabilities: pure functions from traces to findings.

Every finding names a witness (cut, position, both values) and its coverage.  A `pass` says that no violation was
found with what was tried; it proves nothing about what was not.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from verify.audit.evidence import evidence, finding, number, told
from verify.audit.perturbations import Perturbation
from verify.audit.trace import Trace, row_difference, score_difference
from verify.finding import Finding

FLOAT = 1e-5  # nats; float32 sums in another order (batch shapes, kernels) move a score by about 1e-6
NOISE = 1e-3  # nats; more than any kernel makes two runs differ by
MARGIN = 4  # times the noise of one repeat is still noise: it was measured once, and many runs are compared with it
KRAFT = 1e-4  # V scores from V runs, each with float32 rounding; smallest excess of a real cheat: 7e-3


class Run(NamedTuple):
    """A changed stream, what the scorer did with the original, and what with the change."""

    change: Perturbation
    before: Trace
    after: Trace


def noise_level(base: Trace, again: Trace) -> float:
    """Largest difference in nats between two runs over the same tokens; infinite when their positions differ."""
    found = score_difference(base, again, _everything(base, again))
    return found.size if found else 0.0


def check_determinism(base: Trace, repeats: Sequence[Trace]) -> Finding:
    """T0: the same tokens give the same scores, to the bit; else something survives a run, or kernels are noisy."""
    rule, coverage = "audit.determinism", {"runs": 1 + len(repeats), "positions": len(base.positions)}
    found = [score_difference(base, again, _everything(base, again)) for again in repeats]
    worst = max((one for one in found if one), key=lambda one: one.size, default=None)
    if worst is None:
        return finding(rule, "pass", f"{1 + len(repeats)} runs over the same tokens are bit-identical", coverage)
    if worst.size <= NOISE:
        message = (
            f"runs over the same tokens differ by up to {worst.size:.2g} nats, as noisy kernels do; the checks below "
            f"take differences up to {MARGIN} times as large for noise"
        )
        return finding(rule, "unknown", message, coverage, worst)
    message = f"another run over the same tokens starts from another state: {told(worst)}"
    return finding(rule, "fail", message, coverage, worst)


def check_prefix(runs: Sequence[Run], noise: float) -> Finding:
    """T1: scores before a cut, and the distribution at it, are a function of the tokens up to the cut."""
    coverage = {
        "cuts": sorted({run.change.cut for run in runs}),
        "kinds": sorted({run.change.why for run in runs}),
        "distributions": all(run.before.log_probs is not None for run in runs),
    }
    return _unchanged("audit.prefix", "only later tokens changed", runs, noise, coverage)


def check_self_target(runs: Sequence[Run], noise: float) -> Finding:
    """T2: the distribution of a position does not depend on its own target."""
    rule, coverage = "audit.self_target", {"positions": sorted({run.change.cut for run in runs})}
    if any(run.before.log_probs is None for run in runs):
        message = "the scorer keeps its distributions to itself; audit.kraft tests their sum instead"
        return finding(rule, "unknown", message, coverage)
    return _unchanged(rule, "only its target changed", runs, noise, coverage)


def check_structure(base: Trace, runs: Sequence[Run], shorter: Trace, noise: float, *, queue: bool) -> Finding:
    """T9: later document starts and lengths change nothing before them; in a declared queue they do: a warning.

    shorter: a run over the first part of the stream; `needs_total_length` says whether scores of its first half
    depend on how much follows, as a learning rate schedule does.  Another structure means other batch shapes, so
    differences of float sums pass.
    """
    coverage: dict[str, Any] = {"changes": len(runs), "kinds": sorted({run.change.why for run in runs})}
    if not runs:
        return finding("audit.structure", "unknown", "no document starts could be moved in this stream", coverage)
    early = _everything(base, shorter)
    early[len(shorter.positions) // 2 :] = False
    moved = score_difference(base, shorter, early, max(FLOAT, noise * MARGIN))
    coverage["needs_total_length"] = moved is not None
    found = _unchanged("audit.structure", "only later documents changed", runs, noise, coverage, FLOAT)
    if queue and found.level == "fail":
        return replace(found, level="warn", message=f"needs the lengths of all documents: {found.message}")
    return found


def check_kraft(runs: Sequence[Run], *, whole: bool = True) -> Finding:
    """T3: exp(-score) summed over every possible target of a position is 1.

    whole: False when some ids were not tried; then the sum must only not exceed 1.

    Source: Kraft's inequality; scores that sum to more than 1 are no code lengths.
    """
    sums: dict[int, float] = {}
    for change, _, after in runs:
        record = after.record(change.cut)
        if record is not None:  # what is never scored is for audit.coverage
            sums[change.cut] = sums.get(change.cut, 0.0) + float(np.exp(-after.nats[record]))
    if not sums:
        return finding("audit.kraft", "unknown", "none of the positions was scored", {"positions": []})
    bad = [at for at, total in sums.items() if not (abs(total - 1) <= KRAFT or (not whole and total < 1))]
    worst = max(sums, key=lambda position: abs(np.nan_to_num(sums[position], nan=np.inf) - 1))
    coverage = {"positions": sorted(sums), "runs": len(runs)}
    witness = {"position": worst, "sum": sums[worst], "tolerance": KRAFT, "violating": len(bad)}
    message = (
        f"exp(-score) over all targets of position {worst} sums to {sums[worst]:.6g}; "
        f"{len(bad)} of {len(sums)} positions are off by more than {KRAFT:g}"
    )
    return finding("audit.kraft", "fail" if bad else "pass", message, coverage, witness)


def check_normalization(base: Trace, tokens: np.ndarray) -> Finding:
    """T4: the distributions a scorer states sum to 1 over the vocabulary and hold the scores of the targets."""
    rule, coverage = "audit.normalization", {"positions": len(base.positions)}
    stated, sums = base.nats, np.ones(len(base.nats))
    if base.log_probs is not None:
        rows = base.log_probs.astype(np.float64)
        stated = -rows[np.arange(len(rows)), tokens[base.positions + 1]]
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.exp(rows).sum(1)
    with np.errstate(invalid="ignore"):
        fine = (np.abs(sums - 1) <= FLOAT) & (np.abs(base.nats - stated) <= FLOAT) & (base.nats >= -FLOAT)
    bad = np.flatnonzero(~fine)
    if len(bad):
        at = int(bad[0])
        witness = {
            "position": int(base.positions[at]),
            "sum": float(sums[at]),
            "nats": float(base.nats[at]),
            "stated_nats": float(stated[at]),
            "violating": len(bad),
        }
        message = (
            f"position {base.positions[at]} has the score {base.nats[at]:.6f}, its distribution says {stated[at]:.6f} "
            f"and sums to {sums[at]:.6g} ({len(bad)} of {len(base.nats)} positions)"
        )
        return finding(rule, "fail", message, coverage, witness)
    if base.log_probs is None:
        message = "the scorer keeps its distributions to itself; audit.kraft tests their sum instead"
        return finding(rule, "unknown", message, coverage)
    message = "every distribution sums to 1 and holds the score of its target"
    return finding(rule, "pass", message, coverage, {"tolerance": FLOAT})


def _unchanged(
    rule: str,
    when: str,
    runs: Sequence[Run],
    noise: float,
    coverage: dict[str, Any],
    floor: float = 0.0,
) -> Finding:
    """fail, with the worst witness, when any run moved what had to stay by more than floor and noise."""
    tolerance, found = max(floor, noise * MARGIN), []
    for change, before, after in runs:
        moved = score_difference(before, after, change.known, tolerance)
        if moved is None and change.row is not None:
            moved = row_difference(before, after, change.row, tolerance)
        if moved:
            found.append((moved.size, change, moved))
    coverage = {**coverage, "runs": len(runs), "tolerance": number(tolerance)}
    if found:
        _, change, moved = max(found, key=lambda one: one[0])
        message = f"{told(moved)} when {when}, cut {change.cut} ({change.why}); {len(found)} of {len(runs)} runs"
        witness = {"cut": change.cut, "why": change.why, "violating": len(found), **evidence(moved)}
        return finding(rule, "fail", message, coverage, witness)
    if noise > NOISE:
        return finding(rule, "unknown", f"scores differ by {noise:.2g} nats without any change", coverage)
    how = "bit-identical" if tolerance == 0 else f"equal within {tolerance:.2g} nats"
    return finding(rule, "pass", f"{how} in {len(runs)} runs in which {when}", coverage)


def _everything(base: Trace, again: Trace) -> np.ndarray:
    return np.ones(1 + max(int(run.positions.max(initial=0)) for run in (base, again)), bool)
