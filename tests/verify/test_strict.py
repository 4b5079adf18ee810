"""Targets scored from prefixes alone, through models that help themselves, that round, and that refuse."""

from contextlib import nullcontext

import numpy as np
import pytest

from benchmarks.compared.leaks import LENGTH, TARGETS, Leak, Leaking, Text, scored
from codec.errors import InputError
from tests.verify.test_probe import CAUSAL, causal_tensors
from verify import Settings, Submission, examine
from verify.foresight.findings import strict_finding
from verify.foresight.probe import Proof
from verify.foresight.strict import score_alone

TEXT, HONEST = Text(4), Leak(share=0.0)


class Wrapped:
    """An honest toy, or one with a leak, whose answers to shorter windows are others."""

    def __init__(self, leak=HONEST, shorter=lambda logits: logits):
        self.model, self.shorter = Leaking(TEXT, leak, 0), shorter

    def logits(self, ids):
        logits = self.model.logits(ids)
        return logits if ids.shape[1] == LENGTH else self.shorter(logits)


def refuse(logits):
    raise InputError("the script failed with ValueError: need 32 tokens")


def alone(run_leak, model, count=60, noise=0.0):
    run = scored(TEXT, run_leak, 0)
    return score_alone(lambda: nullcontext(model()), run, np.random.default_rng(5), count=count, noise=noise)


@pytest.mark.parametrize("shorter", [lambda logits: logits, refuse])
def test_what_reads_ahead_is_worse_alone(shorter):
    """Each target's gap is what the leak is worth there; nothing at a window's last position, which sees no more."""
    leak = Leak(share=1.0)
    found = alone(leak, lambda: Wrapped(leak, shorter), count=400)
    finding = strict_finding(found)
    assert finding.level == "fail"
    assert found.low < leak.nats * 7 / 8 < found.high
    assert found.mean > 0
    assert bool(found.refusal) == (shorter is refuse) == (found.targets == 0)


def test_honest_models_agree():
    found = alone(HONEST, Wrapped)
    assert (found.mean, found.worst, found.rounded, found.targets) == (0.0, None, 0, 60)
    refused = alone(HONEST, lambda: Wrapped(shorter=refuse))
    assert (refused.mean, refused.worst, refused.targets) == (0.0, None, 0)


def test_kernels_of_another_shape_may_round():
    """A difference that goes with the shape is no leak; one that stays in the scored shape is."""
    found = alone(HONEST, lambda: Wrapped(shorter=lambda logits: logits * 1.001))
    assert found.worst is None
    assert found.rounded > 40
    leak = Leak(share=1.0)
    hidden = alone(leak, lambda: Wrapped(leak, lambda logits: logits * 1.001))
    assert hidden.worst is not None


def test_more_targets_than_there_are():
    assert alone(HONEST, Wrapped, count=10 * TARGETS).targets == TARGETS


@pytest.mark.slow
def test_by_the_whole_pipeline(write_submission, heldout):
    folder = write_submission(CAUSAL, tensors=causal_tensors())
    settings = Settings(length=16, stride=4, batch=4, threads=1)
    verdict = examine(Submission.open(folder), heldout, settings, proof=Proof(strict=40))
    found = {finding.rule: finding for finding in verdict.findings}
    assert (found["score.strict"].level, found["score.prefix"].level) == ("pass", "pass")
    assert found["score.strict"].evidence["coverage"]["targets"] == 40
