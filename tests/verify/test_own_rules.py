"""What is said of a score by a script's own adaptation, from facts that nobody measured."""

from dataclasses import replace

import pytest

from tests.verify.measured import ADAPTING, CHUNKS, FACTS, OWN, SCORE, claiming
from verify.audit.own_probe import OwnProbe
from verify.audit.trace import Difference
from verify.own_rules import check_own_prefix, check_statement
from verify.reveal.stretches import OwnStatement
from verify.run_rules import check_claimed_score, check_time, evaluation
from verify.verdict import Verdict


def facts(**changes):
    return replace(ADAPTING, own=replace(ADAPTING.own, **changes))


def difference(size):
    return Difference(what="score", position=20, before=1.0, after=1.0 + size, changed=3)


def test_without_adaptation_there_is_nothing_to_say():
    assert (check_statement(FACTS), check_own_prefix(FACTS), FACTS.headline) == (None, None, SCORE)


def test_the_statement_is_told_and_a_queue_warned_of():
    found = check_statement(ADAPTING)
    assert (found.level, found.evidence["targets"]) == ("pass", 32768)
    assert "chunks of 32,768 targets, in the order of the text" in found.message
    queue = OwnStatement.read({"stretch": "document", "order": "longest"})
    found = check_statement(facts(statement=queue))
    assert (found.level, found.evidence["order"]) == ("warn", "longest")
    assert "order of a queue uses document lengths" in found.message


@pytest.mark.parametrize(
    ("changed", "alone", "level", "words"),
    [
        (0.0, 0.0, "pass", "16 times with another text behind a cut: equal up to the cut"),
        (0.5, 0.0, "fail", "position 20 went from 1.000000 to 1.500000 by `reveal` when only the text behind"),
        (2e-5, 0.0, "fail", "when only the text behind"),
        (4e-4, 2e-4, "unknown", "differ by 0.0002 nats behind which nothing changed"),
        (9e-4, 2e-4, "fail", "when only the text behind"),
        (0.0, 0.3, "fail", "its state comes from more than what was revealed"),
        (0.4, 0.3, "fail", "its state comes from more than what was revealed"),
    ],
)
def test_the_probe_is_judged(changed, alone, level, words):
    probe = OwnProbe(batches=4, cuts=16)
    if changed:
        probe = replace(probe, moved=2, cut=22, worst=difference(changed))
    found = check_own_prefix(facts(probe=replace(probe, alone=difference(alone) if alone else None)))
    assert (found.rule, found.level) == ("score.prefix", level)
    assert words in found.message
    assert found.evidence["coverage"]["score"] == "own"


def test_the_own_score_counts():
    """Claims are about it unless they say that they are of fixed weights; so is the time."""
    levels = {
        (claim, mode): check_claimed_score(
            claiming({"val_bpb": score.bpb, "eval": {"mode": mode, "L": 16, "S": 4, "n_tokens": 179}}, ADAPTING)
        ).level
        for claim, score in (("own", OWN.score), ("sliding", SCORE))
        for mode in ("own", "ttt", "sliding")
    }
    assert levels == {
        ("own", "own"): "pass",
        ("own", "ttt"): "pass",
        ("own", "sliding"): "fail",
        ("sliding", "own"): "fail",
        ("sliding", "ttt"): "fail",
        ("sliding", "sliding"): "pass",
    }
    assert check_time(ADAPTING).evidence["seconds"] == 7.0
    assert evaluation(OWN.score, 16, 4, CHUNKS.to_dict())["ttt"] == CHUNKS.to_dict()
    assert evaluation(SCORE, 16, 4, CHUNKS.to_dict())["ttt"] is None


def test_the_verdict_names_the_score_that_counts():
    verdict = Verdict(findings=(), bytes=FACTS.count, scores=(SCORE, OWN.score), own=CHUNKS.to_dict())
    assert verdict.headline == OWN.score
    found = verdict.to_dict()
    assert (found["headline"], found["own"]) == ("own", CHUNKS.to_dict())
    assert "own" not in Verdict(findings=(), bytes=FACTS.count, scores=(SCORE,)).to_dict()
