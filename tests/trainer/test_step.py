"""Every feature of the presets in runs of small ones: averages, looping, rounding, warm-up, clipping, compiling."""

import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from codec.errors import UsageError
from codec.quantization.recipe_files import load_recipe
from codec.storage.checkpoint import read_checkpoint
from codec.storage.token_shards import shard_bytes
from tests.trainer.runs import assert_equal, go, metrics, weights
from tests.trainer.shrunk import small_preset
from tests.trainer.test_qat import WITHOUT_FORMULA
from trainer.compute.device import halve_embeddings
from trainer.model.gpt import GPT, GPTConfig
from trainer.run.step import Stepper


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """Tokens for the 64 ids of the small presets."""
    folder = tmp_path_factory.mktemp("narrow")
    tokens = np.random.default_rng(1).integers(0, 8, 3000).cumsum() % 64
    for number in range(2):
        (folder / f"x_train_{number}.bin").write_bytes(shard_bytes(tokens[1500 * number :][:1500]))
    (folder / "x.model").write_bytes(b"stands for a tokenizer")
    return folder


def small_evaluation(model):
    ids = torch.arange(32).view(2, 16)
    assert model.looping
    assert not model.training
    return model(ids, ids).item(), 1.0


def interrupt_at(wanted):
    def progress(step, note):
        if step == wanted:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


# Between them: snapshots, a moving average from the start and from half of the run, a gradient that nothing clears.
FEATURES = ["pr162", "pr1176", "pr1716", "cpu-bench"]


@pytest.fixture(scope="module")
def finished(narrow, tmp_path_factory):
    """name -> folder of an uninterrupted run of that small preset."""
    folders = {}

    def run(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name) / "run"
            go(narrow, folders[name], small_preset(name), evaluate=small_evaluation)
        return folders[name]

    return run


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_resumes_bit_for_bit(narrow, finished, tmp_path, name):
    with pytest.raises(KeyboardInterrupt):
        go(narrow, tmp_path, small_preset(name), evaluate=small_evaluation, progress=interrupt_at(13))
    state = read_checkpoint(tmp_path / "state.safetensors")[0]
    assert ("gradient/bigram.embed.weight" in state) == (name == "pr1716")
    go(narrow, tmp_path, small_preset(name), evaluate=small_evaluation, resume=True)
    assert_equal(weights(tmp_path), weights(finished(name)))
    assert_equal(*(read_checkpoint(folder / "state.safetensors")[0] for folder in (tmp_path, finished(name))))


@pytest.mark.parametrize("name", ["pr1716", "pr162"])
def test_warm_up_leaves_no_trace(narrow, finished, tmp_path, name):
    """Both graphs of a looping model and rounded weights are warmed up; all ends as without."""
    preset = small_preset(name)
    go(narrow, tmp_path, replace(preset, train=replace(preset.train, warmup_steps=3)), evaluate=small_evaluation)
    assert_equal(weights(tmp_path), weights(finished(name)))
    assert_equal(*(read_checkpoint(folder / "state.safetensors")[0] for folder in (tmp_path, finished(name))))
    ours, wanted = ([row | {"train_seconds": 0} for row in metrics(folder)] for folder in (tmp_path, finished(name)))
    assert ours == wanted
    assert int(re.search(r"warmup:(\d+)ms", (tmp_path / "train.log").read_text())[1]) > 0


def test_warm_up_draws_no_random_numbers_of_the_run(narrow, tmp_path, monkeypatch):
    draws, forward, small = [], GPT.forward, small_preset("pr162")
    monkeypatch.setattr(GPT, "forward", lambda *call: draws.append(torch.rand(()).item()) or forward(*call))
    for count in (0, 2):
        torch.manual_seed(5)
        preset = replace(small, train=replace(small.train, warmup_steps=count, micro_batch=4))
        go(narrow, tmp_path / str(count), preset, steps=2, evaluate=lambda model: (1.0, 1.0))
    assert draws[2:] == draws[:2] + draws[:2]


def test_the_checkpoint_holds_buffers_and_averaged_weights(finished):
    tensors, notes = read_checkpoint(finished("pr1716") / "checkpoint.safetensors")
    model = GPT(GPTConfig.from_dict(notes["config"]))
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
    assert tensors["logit_temp"].shape == ()
    state = read_checkpoint(finished("pr1716") / "state.safetensors")[0]
    assert np.array_equal(tensors["skip_gates"], state["average/skip_gates"])
    assert not np.array_equal(tensors["skip_gates"], state["weights/skip_gates"])
    assert not tensors["bigram.embed.weight"].any()


def test_layers_loop_from_their_part_of_the_run(narrow, tmp_path, monkeypatch):
    seen, forward = [], GPT.forward
    monkeypatch.setattr(GPT, "forward", lambda model, *batch: seen.append(model.looping) or forward(model, *batch))
    preset = small_preset("pr1716")
    go(
        narrow,
        tmp_path,
        replace(preset, train=replace(preset.train, micro_batch=4, val_every=3)),
        evaluate=lambda model: (float(model.looping), 0.0),
    )
    assert seen == [step / 20 >= 0.35 for step in range(20)]  # a validation after step 3 does not switch it on
    assert "step:3/20 val_loss:1.0" in (tmp_path / "train.log").read_text()


def test_rounding_begins_when_the_learning_rate_has_fallen(narrow, tmp_path, monkeypatch):
    """In those steps the matrices that the forward pass sees hold at most 63 levels per row."""
    levels, forward = [], GPT.forward

    def watch(model, *batch):
        row = model.blocks[0].mlp.fc.weight.detach()[0]
        levels.append(len(row.unique()))
        return forward(model, *batch)

    monkeypatch.setattr(GPT, "forward", watch)
    preset = small_preset("pr162")
    model = replace(preset.model, mlp_hidden=1088)  # the recipe rounds matrices of more than 65,536 weights
    rounding = replace(preset.train, micro_batch=4, qat_below=0.5, qat_recipe="pr162")
    preset = replace(preset, model=model, train=rounding)
    go(narrow, tmp_path, preset, evaluate=lambda model: (1.0, 1.0), find_recipe=load_recipe)
    rates = [min(1.0, (20 - step) / preset.train.warmdown_steps) for step in range(20)]
    assert [count <= 63 for count in levels] == [rate < 0.5 for rate in rates]
    assert any(count <= 63 for count in levels)
    assert len(np.unique(weights(tmp_path)["blocks.0.mlp.fc.weight"][0])) > 63
    for find, words in (
        (lambda _: WITHOUT_FORMULA, "cannot round with treatment `numbers`"),
        (None, "pass find_recipe"),
    ):
        with pytest.raises(UsageError, match=words):
            go(narrow, tmp_path / "other", preset, evaluate=small_evaluation, find_recipe=find)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("clip", [0.05, 0.0])
def test_gradients_are_clipped_unless_that_is_off(narrow, tmp_path, monkeypatch, clip):
    norms, update, small = [], Stepper.update, small_preset("pr162")

    def watch(stepper, *arguments):
        gradients = [weight.grad.flatten() for weight in stepper.state.model.parameters()]
        norms.append(torch.cat(gradients).norm().item())
        update(stepper, *arguments)

    monkeypatch.setattr(Stepper, "update", watch)
    preset = replace(small, train=replace(small.train, grad_clip=clip, log_every=1))
    go(narrow, tmp_path, preset, steps=3, evaluate=small_evaluation)
    logged = [row["grad_norm"] for row in metrics(tmp_path)[:3]]
    assert max(logged) > 0.05
    assert norms == pytest.approx([min(norm, clip or norm) for norm in logged], rel=1e-3)


@pytest.mark.parametrize("name", ["pr1176", "pr1716"])
def test_half_precision_as_on_a_gpu(narrow, finished, tmp_path, monkeypatch, name):
    """Embeddings in bfloat16, the rest float32 under autocast: the same losses but for rounding; it resumes exactly."""
    monkeypatch.setattr("trainer.run.step.to_device", lambda model, device: halve_embeddings(model))
    for module in ("trainer.run.step", "trainer.run.loop"):
        monkeypatch.setattr(f"{module}.autocast", lambda device: torch.autocast("cpu", torch.bfloat16))
    preset = small_preset(name)
    go(narrow, tmp_path / "whole", preset, evaluate=small_evaluation)
    ours, wanted = ([row["train_loss"] for row in metrics(run)[:-1]] for run in (tmp_path / "whole", finished(name)))
    assert ours == pytest.approx(wanted, rel=0.03)
    assert ours != wanted
    with pytest.raises(KeyboardInterrupt):
        go(narrow, tmp_path, preset, evaluate=small_evaluation, progress=interrupt_at(13))
    go(narrow, tmp_path, preset, evaluate=small_evaluation, resume=True)
    assert_equal(weights(tmp_path), weights(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside torch's compiler
def test_a_compiled_model_trains_alike(narrow, tmp_path):
    """Both graphs of a looping model, compiled in the warm-up; names and numbers stay."""
    small = small_preset("pr1716")
    sizes = {"layers": 2, "loop_first": 1, "loop_last": 1, "xsa_layers": 1, "parallel_layers": 1}
    small = replace(small, model=replace(small.model, **sizes))
    compiled = replace(small, train=replace(small.train, compile=True, warmup_steps=1))
    for preset, folder in ((small, "eager"), (compiled, "compiled")):
        go(narrow, tmp_path / folder, preset, evaluate=small_evaluation)
    assert weights(tmp_path / "compiled").keys() == weights(tmp_path / "eager").keys()
    ours, eager = ([row.get("train_loss", 0) for row in metrics(tmp_path / name)] for name in ("compiled", "eager"))
    assert ours == pytest.approx(eager, abs=2e-3)
    assert " compile:1 " in (tmp_path / "compiled" / "train.log").read_text()
