"""Judges of the score by a script's own adaptation."""

from verify.audit.causality_rules import MARGIN, NOISE
from verify.audit.evidence import clause, finding
from verify.facts import Facts
from verify.finding import Finding
from verify.run_rules import run_judges


@run_judges("score.reveal")
def check_statement(facts: Facts) -> Finding | None:
    """How the script adapts, as it states: a queue needs what nobody can know who has read the text up to there."""
    if facts.own is None:
        return None
    statement, score = facts.own.statement, facts.own.rescored.score
    message = f"`reveal`: {statement}; each stretch was shown when its scores were fixed, in this order, once"
    if statement.queue:
        message += "; order of a queue uses document lengths"
    return Finding(
        rule="score.reveal",
        level="warn" if statement.queue else "pass",
        message=message,
        evidence={**statement.to_dict(), "bpb": score.bpb, "sliding_bpb": facts.packed.score.bpb},
    )


@run_judges("score.prefix")
def check_own_prefix(facts: Facts) -> Finding | None:
    """Another process that was shown the same text gives the same scores, whatever follows."""
    if facts.own is None:
        return None
    rule, probe = "score.prefix", facts.own.probe
    worst, noise, alone = probe.worst, probe.noise, probe.alone
    coverage = {"score": "own", "batches": probe.batches, "cuts": probe.cuts, "tolerance": probe.tolerance}
    again = f"{probe.batches} of the batches scored by `reveal` in a process that was shown the same text"
    if worst is None and alone is None:
        message = f"{again}, {probe.cuts} times with another text behind a cut: equal up to the cut"
        return finding(rule, "pass", message, coverage)
    coverage |= {"noise": noise}
    if worst is not None and worst.size > MARGIN * noise:
        message = (
            f"{clause(worst)} by `reveal` when only the text behind position {probe.cut} changed; {probe.moved} of "
            f"{probe.batches} batches"
        )
        witness = {"cut": probe.cut, "position": worst.position, "before": worst.before, "after": worst.after}
        return finding(rule, "fail", message, coverage, witness)
    if noise <= NOISE:
        message = f"{again}: scores differ by {noise:.2g} nats behind which nothing changed, as noisy kernels do"
        return finding(rule, "unknown", message, coverage, alone)
    message = f"{again}: {clause(alone)}, so its state comes from more than what was revealed" if alone else again
    return finding(rule, "fail", message, coverage, alone)
