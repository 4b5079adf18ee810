"""Every check is shown to fail on a mutated scorer that no other check notices, and to leave honest ones alone."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.published_procedures import SlotAfterTtt, SlotOnScored, TailAgain, TttTailAgain
from codec.errors import InputError, UsageError
from verify.audit.accounting_rules import check_fresh_process, check_side_channel, check_target_bytes
from verify.audit.fresh_process import Observation
from verify.audit.gallery.cheats import shortest_first
from verify.audit.gallery.honest import sliding
from verify.audit.gallery.toy import (
    BOS,
    CHUNK,
    DOCUMENTS,
    LENGTH,
    STRIDE,
    VOCAB,
    Model,
    Procedure,
    stream,
    target_bytes,
)
from verify.audit.measurements import External, Measurements, expected_runs, measure_scorer
from verify.audit.perturbations import Scope, choose_cuts, made_up
from verify.audit.runner import Audit, audit
from verify.audit.trace import trace
from verify.scoring.scorer import Scored
from verify.scoring.sliding import Sliding, digest
from verify.scoring.slot import ContextSlot
from verify.scoring.ttt import Orthogonal, ScoreFirst

SCOPE = Scope(periods=(STRIDE, LENGTH, CHUNK), cuts=24, sums=4, coded=24)
LAST_START = int(np.flatnonzero(stream() == BOS)[-1])
QUICK = Scope(cuts=8, sums=1, coded=8)


def levels(found: Audit) -> dict[str, str]:
    return {finding.rule: finding.level for finding in found.findings}


def failing(found: Audit) -> set[str]:
    return {rule for rule, level in levels(found).items() if level in ("fail", "warn")}


def evidence(found: Audit, rule: str) -> dict[str, Any]:
    return next(finding.evidence for finding in found.findings if finding.rule == rule)


@dataclass(frozen=True)
class Edited:
    """The honest sliding scorer, each batch changed by edit(scored, tokens, batch, ranks, number of the run)."""

    edit: Any
    name: str = "edited"
    vocab_size: int = VOCAB
    runs: list = dataclasses.field(default_factory=list)

    def run(self, tokens, *, batch, ranks=1):
        self.runs.append(len(tokens))
        number = len(self.runs)
        for scored in sliding(tokens, batch, ranks):
            yield self.edit(scored, tokens, batch, ranks, number)


def tilted(rows, amount):
    """Normalized again after raising one id."""
    changed = rows.copy()
    changed[:, 3] += amount
    return changed - np.log(np.exp(changed).sum(1, keepdims=True))


def retold(scored, tokens, rows):
    return dataclasses.replace(scored, log_probs=rows, nats=-rows[np.arange(len(rows)), tokens[scored.positions + 1]])


def at(first, stop, amount):
    """Raise id 3 at positions first .. stop - 1 by amount(tokens, batch, ranks, number of the run)."""

    def edit(scored, tokens, batch, ranks, number):
        here = (scored.positions >= first) & (scored.positions < stop)
        rows = np.where(here[:, None], tilted(scored.log_probs, amount(tokens, batch, ranks, number)), scored.log_probs)
        return retold(scored, tokens, rows)

    return edit


def swaps_when_the_target_is_padding(scored, tokens, *_):
    rows = scored.log_probs.copy()
    padding = tokens[scored.positions + 1] == 0
    rows[np.ix_(padding, [3, 4])] = rows[np.ix_(padding, [4, 3])]
    return retold(scored, tokens, rows)


def pays_only_for_the_target(scored, tokens, *_):
    return dataclasses.replace(scored, nats=0.9 * scored.nats, log_probs=None)


def states_too_much_for_padding(scored, tokens, *_):
    rows = scored.log_probs.copy()
    rows[scored.positions == 150, 0] += 2.0
    return dataclasses.replace(scored, log_probs=rows)


def leaves_out(scored, tokens, *_):
    kept = scored.positions != 103
    return dataclasses.replace(
        scored, positions=scored.positions[kept], nats=scored.nats[kept], log_probs=scored.log_probs[kept]
    )


def names_the_future(scored, tokens, *_):
    return dataclasses.replace(scored, digest=str(tokens.sum()))


def knows_its_target_at_a_place_that_is_not_cut(scored, tokens, *_):
    cuts = choose_cuts(trace(Procedure("", sliding), stream(), batch=SCOPE.batch), stream(), SCOPE)
    place = next(position for position in range(SCOPE.coded) if position not in cuts)
    rows = scored.log_probs.copy()
    rows[scored.positions == place, tokens[place + 1]] += 1.0
    return retold(scored, tokens, rows - np.log(np.exp(rows).sum(1, keepdims=True)))


# What the only check to notice is, and the edit.
MUTATIONS = [
    ("audit.determinism", at(0, 999, lambda tokens, batch, ranks, number: number > 1)),
    ("audit.prefix", at(150, 151, lambda tokens, *_: tokens[175:176].sum() % 5)),
    ("audit.self_target", swaps_when_the_target_is_padding),
    ("audit.kraft", pays_only_for_the_target),
    ("audit.normalization", states_too_much_for_padding),
    ("audit.coverage", leaves_out),
    ("audit.state", names_the_future),
    ("audit.batch", at(0, 999, lambda tokens, batch, ranks, number: batch == 1)),
    ("audit.batch", at(0, 999, lambda tokens, batch, ranks, number: ranks == 2)),
    ("audit.structure", at(60, 80, lambda tokens, *_: 2.0 * (tokens[LAST_START : LAST_START + 1] == BOS).sum())),
    ("audit.codec", knows_its_target_at_a_place_that_is_not_cut),
]


@pytest.mark.parametrize(("rule", "edit"), MUTATIONS)
def test_each_check_notices_what_no_other_does(rule, edit):
    found = audit(Edited(edit), stream(), SCOPE)
    assert failing(found) == {rule}
    assert found.exit_code == (rule != "audit.batch")


@pytest.fixture(scope="module")
def honest() -> Audit:
    return audit(Procedure("sliding", sliding), stream(), SCOPE, artifact_digest=Model().digest())


def test_an_honest_scorer_is_left_alone_and_not_called_legal(honest):
    assert not failing(honest)
    assert honest.exit_code == 0
    assert honest.verdict.startswith("no violation found")
    assert "legal" not in honest.verdict
    assert {rule for rule, level in levels(honest).items() if level == "unknown"} == {
        "audit.side_channel",
        "audit.fresh_process",
        "audit.bytes",
    }


def test_the_report_says_what_was_tried(honest):
    assert honest.coverage["targets"] == len(stream()) - 1
    assert honest.coverage["runs"] == pytest.approx(expected_runs(SCOPE, VOCAB), rel=0.1)
    kinds = evidence(honest, "audit.prefix")["coverage"]["kinds"]
    assert {"batch edge", "document edge", "rank split", "tail", f"multiple of {CHUNK}", "inside"} <= set(kinds)


def test_a_witness_names_cut_position_and_both_values():
    found = audit(Edited(at(150, 151, lambda tokens, *_: tokens[175:176].sum() % 5)), stream(), SCOPE)
    witness = evidence(found, "audit.prefix")
    assert (witness["position"], witness["before"] != witness["after"]) == (150, True)
    assert 150 <= witness["cut"] <= 174
    again = audit(Edited(at(150, 151, lambda tokens, *_: tokens[175:176].sum() % 5)), stream(), SCOPE)
    assert again.to_dict() == found.to_dict()


def test_without_distributions_four_checks_cannot_decide():
    found = audit(Edited(lambda scored, *_: dataclasses.replace(scored, log_probs=None)), stream(), QUICK)
    unknown = {rule for rule, level in levels(found).items() if level == "unknown"}
    assert {"audit.self_target", "audit.normalization", "audit.codec"} <= unknown
    assert not failing(found)


def noisy(size):
    rng = np.random.default_rng(0)
    return at(0, 999, lambda *_: size * rng.normal())


def test_small_noise_is_told_from_a_leak():
    found = audit(Edited(noisy(1e-6)), stream(), QUICK)
    assert levels(found)["audit.determinism"] == "unknown"
    assert not failing(found)
    assert 0 < evidence(found, "audit.prefix")["coverage"]["tolerance"] < 1e-3

    leak = at(0, 999, lambda tokens, *_: tokens[-1] % 5)
    noise = noisy(1e-6)
    found = audit(Edited(lambda scored, *rest: noise(leak(scored, *rest), *rest)), stream(), QUICK)
    assert levels(found)["audit.prefix"] == "fail"


def test_scores_that_are_no_numbers_are_violations():
    for bad in (np.nan, np.inf, -1.0):
        edit = lambda scored, *_, bad=bad: dataclasses.replace(scored, nats=np.full(len(scored.nats), bad))  # noqa: E731
        found = audit(Edited(edit), stream(), QUICK)
        assert "audit.normalization" in failing(found)
        json.dumps(found.to_dict(), allow_nan=False)


def test_a_declared_queue_is_flagged_but_no_violation():
    scorer = Procedure("queue", shortest_first)
    found = audit(scorer, stream(), dataclasses.replace(SCOPE, queue=True), artifact_digest=Model().digest())
    assert found.exit_code == 0
    assert failing(found) == {"audit.coverage", "audit.structure"}
    assert audit(scorer, stream(), SCOPE).exit_code == 1


def test_a_queue_that_looks_ahead_in_its_own_order_is_caught():
    def steps(tokens, batch, ranks):
        for scored in shortest_first(tokens, batch, ranks):
            yield retold(scored, tokens, tilted(scored.log_probs, tokens[5]))  # the last document of the queue

    found = audit(Procedure("queue", steps), stream(), dataclasses.replace(SCOPE, queue=True))
    assert levels(found)["audit.prefix"] == "fail"


def test_whether_the_total_length_matters_is_told():
    needs = at(0, 999, lambda tokens, *_: len(tokens) / 100)
    for edit, expected in ((needs, True), (lambda scored, *_: scored, False)):
        found = audit(Edited(edit), stream(), QUICK)
        assert evidence(found, "audit.structure")["coverage"]["needs_total_length"] is expected
        assert found.exit_code == 0


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        (stream()[:10], InputError),
        (np.full(40, VOCAB), InputError),
        (np.full(40, -1), InputError),
        (np.array([BOS] + [5, 6] * 20), UsageError),
    ],
)
def test_streams_that_cannot_be_audited_are_refused(tokens, error):
    with pytest.raises(error):
        audit(Procedure("sliding", sliding), tokens, SCOPE)


@pytest.mark.parametrize("settings", [{"batch": 0}, {"cuts": 0}, {"periods": (0,)}])
def test_senseless_scopes_are_refused(settings):
    with pytest.raises(UsageError):
        Scope(**settings)


@pytest.mark.parametrize(
    "part",
    [
        Scored(positions=np.arange(3), nats=np.zeros(2)),
        Scored(positions=np.arange(3), nats=np.zeros(3), log_probs=np.zeros((3, VOCAB - 1))),
        Scored(positions=np.array([10_000]), nats=np.zeros(1)),
        Scored(positions=np.array([-1]), nats=np.zeros(1)),
    ],
)
def test_what_is_no_answer_of_a_scorer_is_refused(part):
    with pytest.raises(InputError):
        trace(Procedure("broken", lambda *_: iter([part])), stream(), batch=1)


def test_a_scorer_that_fails_on_changed_text_is_named():
    def steps(tokens, batch, ranks):
        if tokens[3] != stream()[3]:
            raise KeyError("unseen")
        yield from sliding(tokens, batch, ranks)

    with pytest.raises(InputError, match="KeyError") as caught:
        audit(Procedure("fragile", steps), stream(), QUICK)
    assert caught.value.where == "fragile"


def test_a_scorer_that_writes_into_the_tokens_cannot_spoil_them():
    def steps(tokens, batch, ranks):
        yield from sliding(tokens, batch, ranks)
        tokens[:] = 0

    assert not failing(audit(Procedure("writes", steps), stream(), QUICK))


@pytest.fixture(scope="module")
def measured() -> Measurements:
    return measure_scorer(Procedure("sliding", sliding), stream(), QUICK, External())


def test_surroundings(measured):
    base = measured.base

    def watched(observation):
        return dataclasses.replace(measured, external=External(observed=observation))

    clean = Observation(trace=base, events=())
    assert check_side_channel(watched(clean)).level == "pass"
    assert check_side_channel(watched(Observation(trace=base, events=("socket.connect",)))).level == "fail"
    half = dataclasses.replace(clean, watch="the sandbox", missing=("network",))
    assert check_side_channel(watched(half)).level == "unknown"
    assert check_fresh_process(watched(clean)).level == "pass"
    moved = dataclasses.replace(base, nats=base.nats + 0.01)
    assert check_fresh_process(watched(Observation(trace=moved, events=()))).level == "fail"
    unnamed = dataclasses.replace(base, digests=())
    assert check_fresh_process(watched(Observation(trace=unnamed, events=()))).message == (
        "a fresh process gives the same scores"
    )
    named = dataclasses.replace(base, digests=("other", *base.digests[1:]))
    assert check_fresh_process(watched(Observation(trace=named, events=()))).level == "fail"


def test_bytes_are_compared_target_by_target(measured):
    def compared(counted, proven):
        external = External(counted=counted, proven=proven)
        return check_target_bytes(dataclasses.replace(measured, external=external)).level

    proven = target_bytes(stream())
    swapped = proven.copy()
    swapped[[0, 40]] = swapped[[40, 0]] + [1, -1]  # the same sum
    assert compared(proven, proven) == "pass"
    assert compared(swapped, proven) == "fail"
    assert compared(proven[:-1], proven) == "fail"
    assert compared(None, proven) == "unknown"


def test_the_toy_text_has_the_bytes_it_counts():
    assert target_bytes(stream()).sum() == sum(len(document.encode()) for document in DOCUMENTS)


class Causal(torch.nn.Module):
    """A random model whose positions see their prefix only."""

    def __init__(self, vocab_size: int = 24, width: int = 12) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = torch.nn.Parameter(torch.randn(vocab_size, width, generator=generator))
        self.out = torch.nn.Parameter(torch.randn(width, vocab_size, generator=generator) / 3)

    def hidden(self, ids):
        steps = torch.arange(1, ids.shape[1] + 1).sqrt()[:, None]
        return torch.tanh(self.embed[ids].cumsum(1) / steps)

    def head(self, hidden):
        return hidden @ self.out

    def logits(self, ids):
        return self.head(self.hidden(ids))


OURS = {
    "sliding": lambda model: Sliding(model=model, vocab_size=24, length=16, stride=8, evidence=True),
    "ttt": lambda model: ScoreFirst(
        model=model, vocab_size=24, length=16, stride=8, chunk=32, sequences=2, lr=0.5, evidence=True
    ),
    "muon ttt": lambda model: ScoreFirst(
        model=model, vocab_size=24, length=16, stride=8, chunk=32, sequences=2, update=Orthogonal(), evidence=True
    ),
    "slot": lambda model: ContextSlot(model=model, vocab_size=24, length=16, stride=8, lr=0.1, evidence=True),
}


@pytest.mark.parametrize("kind", OURS)
def test_our_own_scorers_pass_every_check_and_decode(kind):
    model = Causal()
    scope = Scope(periods=(8, 16, 32), cuts=16, sums=2, coded=40)
    found = audit(OURS[kind](model), made_up(24, 100, scope), scope, artifact_digest=digest(model))
    assert not failing(found)
    decided = {rule for rule, level in levels(found).items() if level == "pass"}
    assert decided >= {f"audit.{name}" for name in ("determinism", "prefix", "self_target", "kraft", "state", "codec")}
    assert evidence(found, "audit.codec")["decoded"] == 40


def legacy_ttt(model, **settings):
    return TttTailAgain(model=model, length=16, stride=8, chunk=32, sequences=2, frozen_blocks=0, **settings)


def legacy_slot(model):
    return SlotOnScored(model=model, length=16, stride=8, lr=0.1, projection=torch.float32)


LEGACY = {
    "sliding": (lambda model: TailAgain(model=model, length=16, stride=8), {"audit.coverage"}),
    "ttt": (legacy_ttt, {"audit.coverage"}),
    "slot": (legacy_slot, {"audit.coverage", "audit.prefix", "audit.kraft"}),
    "slot after ttt": (
        lambda model: SlotAfterTtt(ttt=legacy_ttt(model), slot=legacy_slot(model)),
        {"audit.coverage", "audit.prefix", "audit.kraft"},
    ),
}


@pytest.mark.parametrize("kind", LEGACY)
def test_the_published_procedures_are_caught(kind):
    make, rules = LEGACY[kind]
    procedure = make(Causal())
    scorer = Procedure(kind, lambda tokens, batch, ranks: procedure.replay(tokens, batch=batch), vocab_size=24)
    found = audit(scorer, made_up(24, 80, QUICK), dataclasses.replace(QUICK, periods=(8, 16)))
    assert {finding.rule for finding in found.violations} >= rules
    if kind in ("sliding", "ttt"):
        assert {finding.rule for finding in found.violations} == rules
