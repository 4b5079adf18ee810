"""What is said of a score by a script's own adaptation, from facts that nobody measured."""

from dataclasses import replace

import pytest

from tests.verify.measured import ADAPTING, CHUNKS, FACTS, OWN, SCORE, claiming, moved
from verify.foresight.probe import Foresight
from verify.own_rules import check_statement
from verify.reveal.stretches import OwnStatement
from verify.run_rules import check_claimed_score, check_prefix, check_time, evaluation
from verify.verdict import Verdict


def facts(**changes):
    return replace(ADAPTING, own=replace(ADAPTING.own, **changes))


def test_without_adaptation_there_is_nothing_to_say():
    assert (check_statement(FACTS), FACTS.headline) == (None, SCORE)
    assert len([*check_prefix(FACTS)]) == 1


def test_the_statement_is_told_and_a_queue_warned_of():
    found = check_statement(ADAPTING)
    assert (found.level, found.evidence["targets"]) == ("pass", 32768)
    assert "chunks of 32,768 targets, in the order of the text" in found.message
    queue = OwnStatement.read({"stretch": "document", "order": "longest"})
    found = check_statement(facts(statement=queue))
    assert (found.level, found.evidence["order"]) == ("warn", "longest")
    assert "order of a queue uses document lengths" in found.message


NOISY = {"exact": False, "risen": 300, "fallen": 160}


@pytest.mark.parametrize(
    ("prefix", "level", "words"),
    [
        (
            FACTS.prefix,
            "pass",
            "460 cuts by `reveal`, 5.0% of the forwards: equal up to each cut; a leak of >= 0.05 nats",
        ),
        (Foresight(), "unknown", "no scored window was looked at again by `reveal` (--proof 0)"),
        (
            moved(1.0, 1.5),
            "fail",
            "to 1.500000 by `reveal` when only the text behind position 20 changed, in the window",
        ),
        (moved(1.0, 1.5), "fail", "2 of 610 requests"),
        (moved(1.0, 1.5, noise=0.5), "fail", "up to 0.5 nats off, which on a CPU is the script's doing"),
        (moved(1.0, 1.1, noise=0.02, **NOISY), "fail", "only the text behind position 20 changed"),
        (moved(1.0, 1.0005, noise=4e-4, **NOISY), "unknown", "0.0004 nats off; a leak of 0.0005 nats per token would"),
        (moved(1.0, 1.0001, noise=8e-5, **NOISY), "pass", "with probability 1 in 1, 1 in 0.1, 1 in 0.02 of the pos"),
    ],
)
def test_the_replay_is_judged(prefix, level, words):
    """As the sliding score, but for the sign test: noise in what was learned is shared by all scores behind it."""
    _, found = check_prefix(replace(ADAPTING, beside=(replace(prefix, score="own"),)))
    assert (found.rule, found.level) == ("score.prefix", level)
    assert words in found.message
    assert found.evidence["coverage"]["score"] == "own"
    assert set(found.evidence["coverage"]["power"]) == set(FACTS.prefix.power.to_dict())
    assert (" rose at their cuts" in found.message) is False


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
    assert check_time(ADAPTING).evidence["seconds"] == 7.0 + OWN.loading
    assert evaluation(OWN.score, 16, 4, CHUNKS.to_dict())["ttt"] == CHUNKS.to_dict()
    assert evaluation(SCORE, 16, 4, CHUNKS.to_dict())["ttt"] is None


def test_the_verdict_names_the_score_that_counts():
    verdict = Verdict(findings=(), bytes=FACTS.count, scores=(SCORE, OWN.score), own=CHUNKS.to_dict())
    assert verdict.headline == OWN.score
    found = verdict.to_dict()
    assert (found["headline"], found["own"]) == ("own", CHUNKS.to_dict())
    assert "own" not in Verdict(findings=(), bytes=FACTS.count, scores=(SCORE,)).to_dict()
