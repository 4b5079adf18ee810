"""What an audit concludes about accounting, state and surroundings: one finding per check, like audit_checks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from verify.audit.causality_rules import FLOAT, MARGIN, NOISE, Run
from verify.audit.evidence import evidence, finding, number, told
from verify.audit.fresh_process import Observation
from verify.audit.round_trip import RoundTrip
from verify.audit.trace import Trace, score_difference
from verify.finding import Finding

SPARE_BITS = 2  # a code may be so many bits longer than the scores ask for: one for its end, one for rounding


def check_coverage(runs: Mapping[str, Trace], targets: int, *, queue: bool) -> Finding:
    """T5: every position once, from left to right; another order passes as a warning if it was declared.

    runs: label -> trace, for each way of splitting the windows.
    """
    rule, coverage = "audit.coverage", {"targets": targets, "runs": list(runs)}
    for label, run in runs.items():
        times = np.bincount(run.positions, minlength=targets)
        if (times != 1).any():
            at = int(np.argmax(times != 1))
            witness = {
                "run": label,
                "position": at,
                "times": int(times[at]),
                "missing": int((times == 0).sum()),
                "repeated": int((times > 1).sum()),
                "most": int(times.max()),
                "scored": len(run.positions),
            }
            message = (
                f"{len(run.positions)} scores for {targets} targets: {witness['missing']} positions never, "
                f"{witness['repeated']} repeatedly (up to {times.max()} times), first position {at}"
            )
            return finding(rule, "fail", message, coverage, witness)
    for label, run in runs.items():
        back = np.flatnonzero(np.diff(run.positions) < 0)
        if len(back):
            before, after = int(run.positions[back[0]]), int(run.positions[back[0] + 1])
            witness = {"run": label, "before": before, "after": after, "steps_back": len(back)}
            message = f"position {after} is scored after position {before}: the order of a queue, not of the stream"
            return finding(rule, "warn" if queue else "fail", message, coverage, witness)
    return finding(rule, "pass", f"each of {targets} positions once, in order", coverage)


def check_state(base: Trace, runs: Sequence[Run], artifact_digest: str | None) -> Finding:
    """T6: the state starts as the artifact's and holds nothing of tokens behind the batch it scores.

    artifact_digest: the digest of the artifact's state, from whoever decoded it independently.
    """
    rule = "audit.state"
    coverage = {"batches": len(base.digests), "cuts": len(runs), "artifact_digest": artifact_digest is not None}
    if not any(base.digests):
        return finding(rule, "unknown", "the scorer does not name its states", coverage)
    if artifact_digest is not None and base.digests[0] != artifact_digest:
        witness = {"position": 0, "before": artifact_digest, "after": base.digests[0]}
        message = f"the first score comes from state {base.digests[0][:12]}, the artifact is {artifact_digest[:12]}"
        return finding(rule, "fail", message, coverage, witness)
    for change, original, changed in runs:
        # Rows of a batch may be adapted each to its own context, so the batch's last position is the frontier.
        for before, after, positions in zip(original.digests, changed.digests, original.batches(), strict=False):
            if change.known[positions].all() and before != after:
                witness = {"cut": change.cut, "position": int(positions.min()), "before": before, "after": after}
                message = f"the state that scores position {positions.min()} depends on tokens after {change.cut}"
                return finding(rule, "fail", message, coverage, witness)
    if artifact_digest is None:
        message = "no state depends on later tokens; whether the first is the artifact's was not asked"
        return finding(rule, "pass", message, coverage)
    return finding(rule, "pass", "the first state is the artifact's, and none depends on later tokens", coverage)


def check_batch(base: Trace, others: Mapping[str, Trace], noise: float) -> Finding:
    """T7: batch size and number of ranks do not change a score.  If they do, it breaks no rule by itself: a warning."""
    rule, tolerance = "audit.batch", max(FLOAT, noise * MARGIN)
    coverage = {"runs": list(others), "tolerance": number(tolerance)}
    expected, largest = in_order(base), 0.0
    everything = np.ones(1 + max(int(run.positions.max(initial=0)) for run in (base, *others.values())), bool)
    for label, run in others.items():
        found = score_difference(expected, in_order(run), everything)
        if found and not found.size <= tolerance:
            return finding(rule, "warn", f"with {label} {told(found)}", {**coverage, "run": label}, found)
        largest = max(largest, found.size if found else 0.0)
    if noise > NOISE:
        return finding(rule, "unknown", f"scores differ by {noise:.2g} nats without any change", coverage)
    message = f"scores equal within {largest:.1e} nats with {', '.join(others)}"
    return finding(rule, "pass", message, coverage, {"largest": largest})


def check_codec(trip: RoundTrip | None, noise: float) -> Finding:
    """T10: tokens coded with the distributions come back in a decoder that never saw them, at the stated cost."""
    rule = "audit.codec"
    if trip is None:
        message = "without distributions of the first targets, in order, nothing can be coded"
        return finding(rule, "unknown", message, {"targets": 0})
    coverage = {"targets": trip.coded}
    witness = {"bits": trip.bits, "bits_by_score": trip.ideal, "decoded": trip.decoded}
    if trip.moved:
        witness |= evidence(trip.moved)
        message = f"stopped after {trip.decoded} of {trip.coded} targets: to a decoder {told(trip.moved)}"
        noisy = trip.moved.size <= max(FLOAT, noise * MARGIN)
        return finding(rule, "unknown" if noisy else "fail", message, coverage, witness)
    if trip.decoded < trip.coded:
        message = f"target {trip.decoded} of {trip.coded} came back as another token"
        return finding(rule, "fail", message, coverage, witness)
    message = f"{trip.coded} targets decoded from {trip.bits} bits, {trip.ideal:.2f} by their scores"
    honest = abs(trip.bits - trip.ideal) < SPARE_BITS
    return finding(rule, "pass" if honest else "fail", message, coverage, witness)


def check_side_channel(observed: Observation | None) -> Finding:
    """T11: while it ran, the scorer opened no other file, no socket and no program."""
    rule = "audit.side_channel"
    if observed is None:
        return finding(rule, "unknown", "no run was watched in a process of its own", {"runs": 0})
    if observed.events:
        message = f"{len(observed.events)} reaches outside, first: {observed.events[0]}"
        return finding(rule, "fail", message, {"runs": 1}, {"events": list(observed.events[:20])})
    coverage = {"runs": 1, "watch": observed.watch, "missing": list(observed.missing)}
    if observed.missing:
        message = f"nothing seen, but {observed.watch} ran without limits on {'; '.join(observed.missing)}"
        return finding(rule, "unknown", message, coverage)
    message = f"no file, socket or program beyond the allowed, as far as {observed.watch} sees"
    return finding(rule, "pass", message, coverage)


def check_fresh_process(base: Trace, observed: Observation | None) -> Finding:
    """T12: a process that has only the artifact gives the same states and scores."""
    rule = "audit.fresh_process"
    if observed is None:
        return finding(rule, "unknown", "no run was made in a process of its own", {"runs": 0})
    coverage = {"runs": 1, "positions": len(base.positions), "digests": any(base.digests)}
    everything = np.ones(1 + max(int(run.positions.max(initial=0)) for run in (base, observed.trace)), bool)
    found = score_difference(base, observed.trace, everything, FLOAT)
    if found:
        return finding(rule, "fail", f"in a fresh process {told(found)}", coverage, found)
    if base.digests[:1] != observed.trace.digests[:1]:
        witness = {"before": base.digests[:1], "after": observed.trace.digests[:1]}
        return finding(rule, "fail", "a fresh process starts from another state", coverage, witness)
    return finding(rule, "pass", "a fresh process starts from the same state and gives the same scores", coverage)


def check_bytes(counted: np.ndarray | None, proven: np.ndarray | None) -> Finding:
    """The bytes a scorer divides by are those of the text, target by target.

    counted: int64 (n,), its own.  proven: int64 (n,), by a table whose sum was shown to be the text's length.
    """
    rule = "audit.bytes"
    if counted is None or proven is None:
        return finding(rule, "unknown", "no byte counts to compare", {"targets": 0})
    coverage = {"targets": len(proven)}
    if len(counted) != len(proven):
        message = f"bytes are counted for {len(counted)} targets, the text has {len(proven)}"
        return finding(rule, "fail", message, coverage, {"before": len(proven), "after": len(counted)})
    wrong = np.flatnonzero(counted != proven)
    witness = {"counted": int(counted.sum()), "text": int(proven.sum()), "violating": len(wrong)}
    if not len(wrong):
        return finding(rule, "pass", f"{witness['text']} bytes counted, as many as the text has", coverage, witness)
    at = int(wrong[0])
    witness |= {"position": at, "before": int(proven[at]), "after": int(counted[at])}
    message = (
        f"{witness['counted']} bytes counted for {witness['text']} bytes of text; the target of position {at} has "
        f"{proven[at]}, {counted[at]} are counted"
    )
    return finding(rule, "fail", message, coverage, witness)


def in_order(run: Trace) -> Trace:
    """The records sorted by position, for runs that may split the work differently."""
    order = np.argsort(run.positions, kind="stable")
    return replace(run, positions=run.positions[order], nats=run.nats[order], log_probs=None)
