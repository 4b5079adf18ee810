"""The reference script's ttt and slot as its own adaptation: the numbers are those that it prints itself."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.compared.own_leaks import InProcess
from codec.encoder import encode
from packager.reference import Training, reference_bundle
from packager.script.wrapper import wrap
from tests.verify.models import VOCAB, Toy, nats_of, stream
from tests.verify.test_adaptation import ROUNDING
from trainer.model.gpt import GPT
from trainer.presets.catalog import find_preset
from verify.reveal.own_adaptation import Own
from verify.sandbox.launch import Settings, running
from verify.sandbox.model_server import Served
from verify.sandbox.own_scorer import OwnScorer
from verify.sandbox.remote_scorers import scorer_of
from verify.scoring.adaptation import Adaptation
from verify.scoring.slot import ContextSlot
from verify.scoring.ttt import UPDATES, ScoreFirst
from verify.submission.folder import Submission

ROOT = Path(__file__).resolve().parents[2]
LENGTH, STRIDE = 16, 4
HOW = Adaptation(chunk=48, epochs=2, sequences=2, lr=0.1, slot_lr=0.05)
KINDS = ["ttt", "slot"]


def scorers(model, how, vocab_size, length=LENGTH):
    """kind -> the toolkit's scorer."""
    sizes = {"model": model, "vocab_size": vocab_size, "length": length, "stride": STRIDE}
    training = {"chunk": how.chunk, "epochs": how.epochs, "sequences": how.sequences, "lr": how.lr}
    update = UPDATES[how.update]()
    return {
        "ttt": ScoreFirst(**sizes, **training, update=update, frozen_blocks=how.frozen_blocks),
        "slot": ContextSlot(**sizes, steps=how.slot_steps, lr=how.slot_lr),
    }


@pytest.mark.parametrize("how", [HOW, Adaptation(chunk=32, lr=0.1, update="muon", frozen_blocks=1, slot_lr=0.1)])
@pytest.mark.parametrize("kind", KINDS)
def test_through_reveal_scores_are_the_same(kind, how):
    tokens, _ = stream(150)
    model = Toy(torch.float32)
    served = Served(Own(model, kind, how, LENGTH), "cpu", lambda: Own(model, kind, how, LENGTH))
    own = OwnScorer(model=InProcess(served), vocab_size=VOCAB, length=LENGTH, stride=STRIDE)
    expected = nats_of(scorers(model, how, VOCAB)[kind], tokens)
    np.testing.assert_allclose(nats_of(own, tokens), expected, atol=2e-6)
    np.testing.assert_allclose(nats_of(own, tokens), expected, atol=2e-6)


@pytest.fixture(scope="module")
def packed():
    """The preset and the reference script with its modules, to be told by what it scores."""
    recipe = (ROOT / "codec/recipes/pr162-small.toml").read_text()
    return find_preset("tiny"), reference_bundle(Training(preset=find_preset("tiny").to_toml(), recipe=recipe))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_packed_script_adapts_by_itself(kind, packed, tmp_path):
    """With "ttt" or "slot" as the last of its SCORES; the weights that it holds are still the artifact's."""
    preset, parts = packed
    scores, adaptation = 'SCORES = ("sliding",)', "ADAPTATION = Adaptation()"
    assert [parts.main.count(each) for each in (scores, adaptation)] == [1, 1]
    main = parts.main.replace(scores, f'SCORES = ("sliding", "{kind}")')
    main = main.replace(adaptation, "ADAPTATION = Adaptation(chunk=64, epochs=2, sequences=2, lr=0.1, slot_lr=0.05)")
    (tmp_path / "train_gpt.py").write_bytes(wrap(main, parts.modules))
    torch.manual_seed(1)
    model = GPT(preset.model).eval()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    (tmp_path / "model.bin").write_bytes(encode(state, {"config": asdict(preset.model)}))
    how, length, vocab_size = replace(HOW, chunk=64), preset.model.seq_len, preset.model.vocab_size
    tokens = np.random.default_rng(2).integers(1, vocab_size, 257)
    subject = Submission.open(tmp_path)
    with running(subject, subject.blob, Settings(length=length, stride=STRIDE, threads=1)) as remote:
        assert {name: each["sha256"] for name, each in remote.state.items()} == {
            name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in state.items()
        }
        sizes = {"vocab_size": vocab_size, "targets": 256, "length": length, "stride": STRIDE}
        given = nats_of(scorer_of("own", remote, how, **sizes), tokens)
    expected = nats_of(scorers(model, how, vocab_size, length)[kind], tokens)
    np.testing.assert_allclose(given, expected, atol=ROUNDING)
