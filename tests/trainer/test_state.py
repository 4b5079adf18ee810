"""Saved states: what they hold, that they come back exactly, and that other ones are refused."""

from dataclasses import replace

import pytest
import torch

from codec.errors import InputError, UsageError
from codec.storage.checkpoint import read_checkpoint, write_checkpoint
from tests.trainer.shrunk import small_preset
from trainer.model.gpt import GPT
from trainer.model.init import initialize
from trainer.optim.averaging import find_average
from trainer.optim.muon import optimizers
from trainer.optim.schedule import StepSettings
from trainer.run.state import RunPosition, TrainState, load_state, save_state

PRESET = small_preset("pr1716")
IDENTITY = {"preset": "pr1716", "seed": 3, "train": {"steps": 20, "matrix_lr": 0.1}}
POSITION = RunPosition(step=2, seconds=1.5, log_bytes=10, metrics_bytes=20, phases={"val": 0.25})


def fresh(dtype=torch.float32):
    model = GPT(PRESET.model)
    initialize(model, 3)
    for module in (model.tok_emb, model.bigram.embed):
        module.to(dtype)
    return TrainState(
        model=model, optimizers=optimizers(model, PRESET.train), average=find_average(model, PRESET.train)
    )


def train(state, steps, first=0):
    ids = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(first))
    settings = StepSettings(lr=1.0, momentum=0.9, looping=True, qat=False, done=0.5)
    for step in range(first, first + steps):
        for optimizer in state.optimizers:
            optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=state.model.tok_emb.weight.dtype != torch.float32):
            state.model(ids[:, :-1], ids[:, 1:]).backward()
        for optimizer in state.optimizers:
            optimizer.step()
        state.average.update(state.model, step + 1, settings)


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_comes_back_exactly(tmp_path, dtype):
    """Also with embeddings in bfloat16, as on a GPU: float32 in the file, bfloat16 again afterwards."""
    first = fresh(dtype)
    train(first, 2)
    save_state(tmp_path / "state", first, POSITION, IDENTITY)
    other = fresh(dtype)
    train(other, 3, first=7)
    assert load_state(tmp_path / "state", other, IDENTITY) == POSITION
    assert_equal(other.snapshot(), first.snapshot())
    train(first, 2, first=2)
    train(other, 2, first=2)
    assert_equal(other.snapshot(), first.snapshot())


def test_a_snapshot_undoes_everything():
    """Even the buffers that AdamW makes at its first step and the gradient that nothing clears."""
    state = fresh()
    before = state.snapshot()
    assert not any(name.startswith(("exp_avg", "gradient")) for name in before)
    train(state, 2)
    changed = state.snapshot()
    assert {"exp_avg/tok_emb.weight", "step/tok_emb.weight", "gradient/bigram.embed.weight"} <= changed.keys()
    assert not torch.equal(changed["average/tok_emb.weight"], before["average/tok_emb.weight"])
    state.restore(before)
    assert_equal(state.snapshot(), before)
    train(state, 2)
    assert_equal(state.snapshot(), changed)


def test_export_shows_averaged_weights_and_loops():
    state = fresh()
    train(state, 2)
    state.model.looping = False
    live = state.model.tok_emb.weight.detach().clone()
    with state.exported() as model:
        assert model.looping
        assert torch.equal(model.tok_emb.weight, dict(state.average.tensors())["tok_emb.weight"])
        assert not torch.equal(model.tok_emb.weight, live)
    assert torch.equal(state.model.tok_emb.weight, live)


def test_another_run_is_refused(tmp_path):
    state = fresh()
    save_state(tmp_path / "state", state, POSITION, IDENTITY)
    wanted = {**IDENTITY, "seed": 4, "train": {"steps": 30, "matrix_lr": 0.1}}
    with pytest.raises(UsageError, match=r"state: the saved run is another one: seed was 3, is 4, train.steps was 20"):
        load_state(tmp_path / "state", state, wanted)


def test_other_files_are_refused(tmp_path):
    state = fresh()
    save_state(tmp_path / "state", state, POSITION, IDENTITY)
    tensors, notes = read_checkpoint(tmp_path / "state")
    for change in ({"weights/tok_emb.weight": None}, {"weights/tok_emb.weight": tensors["weights/skip_gates"]}):
        kept = {name: array for name, array in {**tensors, **change}.items() if array is not None}
        write_checkpoint(tmp_path / "other", kept, notes)
        with pytest.raises(InputError, match=r"other: does not hold the tensors of this run"):
            load_state(tmp_path / "other", state, IDENTITY)
    write_checkpoint(tmp_path / "other", tensors, {"identity": IDENTITY})
    with pytest.raises(InputError, match="does not hold"):
        load_state(tmp_path / "other", state, IDENTITY)
    write_checkpoint(tmp_path / "other", tensors, {})
    with pytest.raises(InputError, match="is not the state of a run"):
        load_state(tmp_path / "other", state, IDENTITY)


def test_a_run_without_an_average_saves_none():
    config = replace(PRESET.train, ema_decay=0.0)
    state = replace(fresh(), average=find_average(GPT(PRESET.model), config))
    assert state.average is None
    assert not any(name.startswith("average") for name in state.snapshot())
