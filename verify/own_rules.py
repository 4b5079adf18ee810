"""Judges of the score by a script's own adaptation."""

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
