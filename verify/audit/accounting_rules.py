"""The checks of an audit about accounting, state and surroundings."""

import numpy as np

from verify.audit.causality_rules import FLOAT, MARGIN, NOISE
from verify.audit.checks import Judgement, check
from verify.audit.evidence import clause, evidence, finite
from verify.audit.measurements import Measurements
from verify.audit.trace import all_positions, score_difference

SPARE_BITS = 2  # a code may be so many bits longer than the scores ask for: one for its end, one for rounding


@check("audit.coverage")
def check_positions(measured: Measurements) -> Judgement:
    """Every position once, from left to right, however windows are split; a declared other order is a warning."""
    runs, targets = {"base": measured.base, **measured.splits}, len(measured.tokens) - 1
    coverage = {"targets": targets, "runs": list(runs)}
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
            return Judgement("fail", message, coverage, witness)
    for label, run in runs.items():
        back = np.flatnonzero(np.diff(run.positions) < 0)
        if len(back):
            before, after = int(run.positions[back[0]]), int(run.positions[back[0] + 1])
            witness = {"run": label, "before": before, "after": after, "steps_back": len(back)}
            message = f"position {after} is scored after position {before}: the order of a queue, not of the stream"
            return Judgement("warn" if measured.scope.queue else "fail", message, coverage, witness)
    return Judgement("pass", f"each of {targets} positions once, in order", coverage)


@check("audit.state")
def check_digests(measured: Measurements) -> Judgement:
    """The state starts as the artifact's and holds nothing of tokens behind the batch it scores."""
    base, runs, artifact_digest = measured.base, measured.suffixes, measured.external.artifact_digest
    coverage = {"batches": len(base.digests), "cuts": len(runs), "artifact_digest": artifact_digest is not None}
    if not any(base.digests):
        return Judgement("unknown", "the scorer does not name its states", coverage)
    if artifact_digest is not None and base.digests[0] != artifact_digest:
        witness = {"position": 0, "before": artifact_digest, "after": base.digests[0]}
        message = f"the first score comes from state {base.digests[0][:12]}, the artifact is {artifact_digest[:12]}"
        return Judgement("fail", message, coverage, witness)
    for change, original, changed in runs:
        # Rows of a batch may be adapted each to its own context, so the batch's last position is the frontier.
        for before, after, positions in zip(original.digests, changed.digests, original.batches(), strict=False):
            if change.known[positions].all() and before != after:
                witness = {"cut": change.cut, "position": int(positions.min()), "before": before, "after": after}
                message = f"the state that scores position {positions.min()} depends on tokens after {change.cut}"
                return Judgement("fail", message, coverage, witness)
    if artifact_digest is None:
        message = "no state depends on later tokens; whether the first is the artifact's was not asked"
        return Judgement("pass", message, coverage)
    return Judgement("pass", "the first state is the artifact's, and none depends on later tokens", coverage)


@check("audit.batch")
def check_batch(measured: Measurements) -> Judgement:
    """Batch size and number of ranks do not change a score.  If they do, it breaks no rule by itself: a warning."""
    base, others, noise = measured.base, measured.splits, measured.noise
    tolerance = max(FLOAT, noise * MARGIN)
    coverage = {"runs": list(others), "tolerance": finite(tolerance)}
    everything, largest = all_positions(base, *others.values()), 0.0
    for label, run in others.items():
        found = score_difference(base.sorted(), run.sorted(), everything)
        if found and not found.size <= tolerance:
            return Judgement("warn", f"with {label} {clause(found)}", {**coverage, "run": label}, found)
        largest = max(largest, found.size if found else 0.0)
    if noise > NOISE:
        return Judgement("unknown", f"scores differ by {noise:.2g} nats without any change", coverage)
    message = f"scores equal within {largest:.1e} nats with {', '.join(others)}"
    return Judgement("pass", message, coverage, {"largest": largest})


@check("audit.codec")
def check_round_trip(measured: Measurements) -> Judgement:
    """Tokens coded with the distributions come back in a decoder that never saw them, at the stated cost."""
    trip = measured.round_trip
    if trip is None:
        message = "without distributions of the first targets, in order, nothing can be coded"
        return Judgement("unknown", message, {"targets": 0})
    coverage = {"targets": trip.coded}
    witness = {"bits": trip.bits, "bits_by_score": trip.ideal, "decoded": trip.decoded}
    if trip.moved:
        witness |= evidence(trip.moved)
        message = f"stopped after {trip.decoded} of {trip.coded} targets: to a decoder {clause(trip.moved)}"
        noisy = trip.moved.size <= max(FLOAT, measured.noise * MARGIN)
        return Judgement("unknown" if noisy else "fail", message, coverage, witness)
    if trip.decoded < trip.coded:
        message = f"target {trip.decoded} of {trip.coded} came back as another token"
        return Judgement("fail", message, coverage, witness)
    message = f"{trip.coded} targets decoded from {trip.bits} bits, {trip.ideal:.2f} by their scores"
    honest = abs(trip.bits - trip.ideal) < SPARE_BITS
    return Judgement("pass" if honest else "fail", message, coverage, witness)


@check("audit.side_channel")
def check_side_channel(measured: Measurements) -> Judgement:
    """While it ran, the scorer opened no other file, no socket and no program."""
    observed = measured.external.observed
    if observed is None:
        return Judgement("unknown", "no run was watched in a process of its own", {"runs": 0})
    if observed.events:
        message = f"{len(observed.events)} reaches outside, first: {observed.events[0]}"
        return Judgement("fail", message, {"runs": 1}, {"events": list(observed.events[:20])})
    coverage = {"runs": 1, "watch": observed.watch, "missing": list(observed.missing)}
    if observed.missing:
        message = f"nothing seen, but {observed.watch} ran without limits on {'; '.join(observed.missing)}"
        return Judgement("unknown", message, coverage)
    message = f"no file, socket or program beyond the allowed, as far as {observed.watch} sees"
    return Judgement("pass", message, coverage)


@check("audit.fresh_process")
def check_fresh_process(measured: Measurements) -> Judgement:
    """A process that has only the artifact gives the same states and scores."""
    base, observed = measured.base, measured.external.observed
    if observed is None:
        return Judgement("unknown", "no run was made in a process of its own", {"runs": 0})
    coverage = {"runs": 1, "positions": len(base.positions), "digests": any(base.digests)}
    found = score_difference(base, observed.trace, all_positions(base, observed.trace), FLOAT)
    if found:
        return Judgement("fail", f"in a fresh process {clause(found)}", coverage, found)
    if not observed.trace.digests:
        return Judgement("pass", "a fresh process gives the same scores", coverage)
    if base.digests[:1] != observed.trace.digests[:1]:
        witness = {"before": base.digests[:1], "after": observed.trace.digests[:1]}
        return Judgement("fail", "a fresh process starts from another state", coverage, witness)
    return Judgement("pass", "a fresh process starts from the same state and gives the same scores", coverage)


@check("audit.bytes")
def check_target_bytes(measured: Measurements) -> Judgement:
    """The bytes a scorer divides by are those of the text, target by target."""
    counted, proven = measured.external.counted, measured.external.proven
    if counted is None or proven is None:
        return Judgement("unknown", "no byte counts to compare", {"targets": 0})
    coverage = {"targets": len(proven)}
    if len(counted) != len(proven):
        message = f"bytes are counted for {len(counted)} targets, the text has {len(proven)}"
        return Judgement("fail", message, coverage, {"before": len(proven), "after": len(counted)})
    wrong = np.flatnonzero(counted != proven)
    witness = {"counted": int(counted.sum()), "text": int(proven.sum()), "violating": len(wrong)}
    if not len(wrong):
        return Judgement("pass", f"{witness['text']} bytes counted, as many as the text has", coverage, witness)
    at = int(wrong[0])
    witness |= {"position": at, "before": int(proven[at]), "after": int(counted[at])}
    message = (
        f"{witness['counted']} bytes counted for {witness['text']} bytes of text; the target of position {at} has "
        f"{proven[at]}, {counted[at]} are counted"
    )
    return Judgement("fail", message, coverage, witness)
