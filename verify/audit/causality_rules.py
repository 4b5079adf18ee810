"""The checks of an audit about causality and probabilities.

Each names a witness (cut, position, both values) and its coverage.  A `pass` says that no violation was found with what
was tried; it proves nothing about what was not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from verify.audit.checks import Judgement, check
from verify.audit.evidence import clause, evidence, finite
from verify.audit.measurements import ChangedRun, Measurements
from verify.audit.trace import all_positions, row_difference, score_difference

FLOAT = 1e-5  # nats; float32 sums in another order (batch shapes, kernels) move a score by about 1e-6
NOISE = 1e-3  # nats; more than any kernel makes two runs differ by
MARGIN = 4  # times the noise of one repeat is still noise: it was measured once, and many runs are compared with it
KRAFT = 1e-4  # V scores from V runs, each with float32 rounding; smallest excess of a real cheat: 7e-3
NO_DISTRIBUTIONS = "the scorer keeps its distributions to itself; audit.kraft tests their sum instead"


@check("audit.determinism")
def check_determinism(measured: Measurements) -> Judgement:
    """The same tokens give the same scores, to the bit; else something survives a run, or kernels are noisy."""
    base, repeats = measured.base, measured.repeats
    coverage = {"runs": 1 + len(repeats), "positions": len(base.positions)}
    found = [score_difference(base, again, all_positions(base, again)) for again in repeats]
    worst = max((one for one in found if one), key=lambda one: one.size, default=None)
    if worst is None:
        return Judgement("pass", f"{1 + len(repeats)} runs over the same tokens are bit-identical", coverage)
    if worst.size <= NOISE:
        message = (
            f"runs over the same tokens differ by up to {worst.size:.2g} nats, as noisy kernels do; the checks below "
            f"take differences up to {MARGIN} times as large for noise"
        )
        return Judgement("unknown", message, coverage, worst)
    message = f"another run over the same tokens starts from another state: {clause(worst)}"
    return Judgement("fail", message, coverage, worst)


@check("audit.prefix")
def check_causality(measured: Measurements) -> Judgement:
    """Scores before a cut, and the distribution at it, are a function of the tokens up to the cut."""
    runs = measured.suffixes
    coverage = {
        "cuts": sorted({run.change.cut for run in runs}),
        "kinds": sorted({run.change.why for run in runs}),
        "distributions": all(run.before.log_probs is not None for run in runs),
    }
    return _unchanged("only later tokens changed", runs, measured.noise, coverage)


@check("audit.self_target")
def check_self_target(measured: Measurements) -> Judgement:
    """The distribution of a position does not depend on its own target."""
    runs = measured.targets
    coverage = {"positions": sorted({run.change.cut for run in runs})}
    if any(run.before.log_probs is None for run in runs):
        return Judgement("unknown", NO_DISTRIBUTIONS, coverage)
    return _unchanged("only its target changed", runs, measured.noise, coverage)


@check("audit.kraft")
def check_kraft(measured: Measurements) -> Judgement:
    """exp(-score) summed over every possible target of a position is 1.

    In a declared queue what starts a document was not tried as a target; then the sum must only not exceed 1.

    Source: Kraft's inequality; scores that sum to more than 1 are no code lengths.
    """
    runs, whole = measured.targets, not measured.scope.queue
    sums: dict[int, float] = {}
    for change, _, after in runs:
        record = after.record(change.cut)
        if record is not None:  # what is never scored is for audit.coverage
            sums[change.cut] = sums.get(change.cut, 0.0) + float(np.exp(-after.nats[record]))
    if not sums:
        return Judgement("unknown", "none of the positions was scored", {"positions": []})
    bad = [at for at, total in sums.items() if not (abs(total - 1) <= KRAFT or (not whole and total < 1))]
    worst = max(sums, key=lambda position: abs(np.nan_to_num(sums[position], nan=np.inf) - 1))
    coverage = {"positions": sorted(sums), "runs": len(runs)}
    witness = {"position": worst, "sum": sums[worst], "tolerance": KRAFT, "violating": len(bad)}
    message = (
        f"exp(-score) over all targets of position {worst} sums to {sums[worst]:.6g}; "
        f"{len(bad)} of {len(sums)} positions are off by more than {KRAFT:g}"
    )
    return Judgement("fail" if bad else "pass", message, coverage, witness)


@check("audit.normalization")
def check_normalization(measured: Measurements) -> Judgement:
    """The distributions a scorer states sum to 1 over the vocabulary and hold the scores of the targets."""
    base, tokens = measured.base, measured.tokens
    coverage = {"positions": len(base.positions)}
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
        return Judgement("fail", message, coverage, witness)
    if base.log_probs is None:
        return Judgement("unknown", NO_DISTRIBUTIONS, coverage)
    message = "every distribution sums to 1 and holds the score of its target"
    return Judgement("pass", message, coverage, {"tolerance": FLOAT})


@check("audit.structure")
def check_structure(measured: Measurements) -> Judgement:
    """Later document starts and lengths change nothing before them; in a declared queue they do: a warning.

    `needs_total_length` says whether scores of the first half of a shorter stream depend on how much follows, as a
    learning rate schedule does.  Another structure means other batch shapes, so differences of float sums pass.
    """
    base, runs, shorter, noise = measured.base, measured.structures, measured.shorter, measured.noise
    coverage: dict[str, Any] = {"changes": len(runs), "kinds": sorted({run.change.why for run in runs})}
    if not runs:
        return Judgement("unknown", "no document starts could be moved in this stream", coverage)
    early = all_positions(base, shorter)
    early[len(shorter.positions) // 2 :] = False
    moved = score_difference(base, shorter, early, max(FLOAT, noise * MARGIN))
    coverage["needs_total_length"] = moved is not None
    found = _unchanged("only later documents changed", runs, noise, coverage, FLOAT)
    if measured.scope.queue and found.level == "fail":
        return found._replace(level="warn", message=f"needs the lengths of all documents: {found.message}")
    return found


def _unchanged(
    when: str,
    runs: Sequence[ChangedRun],
    noise: float,
    coverage: dict[str, Any],
    floor: float = 0.0,
) -> Judgement:
    """fail, with the worst witness, when any run moved what had to stay by more than floor and noise."""
    tolerance, found = max(floor, noise * MARGIN), []
    for change, before, after in runs:
        moved = score_difference(before, after, change.known, tolerance)
        if moved is None and change.row is not None:
            moved = row_difference(before, after, change.row, tolerance)
        if moved:
            found.append((moved.size, change, moved))
    coverage = {**coverage, "runs": len(runs), "tolerance": finite(tolerance)}
    if found:
        _, change, moved = max(found, key=lambda one: one[0])
        message = f"{clause(moved)} when {when}, cut {change.cut} ({change.why}); {len(found)} of {len(runs)} runs"
        witness = {"cut": change.cut, "why": change.why, "violating": len(found), **evidence(moved)}
        return Judgement("fail", message, coverage, witness)
    if noise > NOISE:
        return Judgement("unknown", f"scores differ by {noise:.2g} nats without any change", coverage)
    how = "bit-identical" if tolerance == 0 else f"equal within {tolerance:.2g} nats"
    return Judgement("pass", f"{how} in {len(runs)} runs in which {when}", coverage)
