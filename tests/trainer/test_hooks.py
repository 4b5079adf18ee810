"""trainer/hooks.py: any module, against `calibrate`, against exact derivatives, and as a file that `encode` reads."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from codec.allocation.damage import added_nats
from codec.errors import InputError, UsageError
from codec.model_file import encode_checkpoint
from codec.storage.calibration_file import Layers, read_layers
from codec.storage.safetensors_file import checkpoint_sha256, read_stored
from trainer.calibration import calibrate
from trainer.hooks import Hooks, relative_change, sampled_loss
from trainer.model.gpt import GPT, GPTConfig


class Conv1D(nn.Module):
    """As the package transformers has it: y = x W + b."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


class Small(nn.Module):
    """A causal mixer with a tied head."""

    def __init__(self, vocabulary=17, width=8, transposed=False):
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.up = Conv1D(24, width) if transposed else nn.Linear(width, 24)
        self.down = nn.Linear(24, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[-1]))

    def forward(self, ids):
        x = self.wte(ids)
        x = self.norm(x.cumsum(1) / torch.arange(1, ids.shape[1] + 1)[:, None])  # inputs of like size: see K-FAC
        return self.lm_head(x + self.down(F.gelu(self.up(x))))


def batches(count=4, vocabulary=17):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(vocabulary, (32, 12), generator=generator) for _ in range(count)]


def hooked(model, ids=None, loss=sampled_loss):
    generator = torch.Generator().manual_seed(2)
    with Hooks(model) as hooks:
        for each in ids or batches():
            hooks.step(loss(model(each), generator), tokens=each.numel())
    return hooks


def test_of_the_toolkits_model_they_find_what_calibrate_finds():
    """All but the output matrix, which the model applies as a function and `calibrate` knows by itself."""
    model = GPT(GPTConfig(vocab_size=17, seq_len=12, layers=2, dim=16, heads=2, kv_heads=1, mlp_hidden=24)).eval()
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.copy_(0.4 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    expected = calibrate(model, batches(), seed=2)
    generator = torch.Generator().manual_seed(2)
    with Hooks(model) as hooks:
        for ids in batches():
            hooks.step(sampled_loss(model.head(model.hidden(ids)), generator), tokens=ids.numel())
    found = hooks.calibration()
    assert found.hessians.keys() == expected.hessians.keys() - {"tok_emb.weight"}
    for kind in ("hessians", "sensitivities", "gradients", "frequencies", "fishers"):
        for name, array in getattr(found, kind).items():
            np.testing.assert_allclose(array, getattr(expected, kind)[name], rtol=1e-4, atol=1e-7, err_msg=name)
    assert found.tokens == expected.tokens


@pytest.mark.parametrize("transposed", [False, True])
def test_they_predict_what_small_errors_add_to_the_loss(transposed):
    """The mean over random errors of a weight; both layouts of a layer are the same layer, and predict the same."""
    model, ids, random = Small(transposed=transposed), batches(40), np.random.default_rng(3)
    found = hooked(model, ids).calibration()
    layers = Layers(
        hessians=found.hessians,
        sensitivities=found.sensitivities,
        gradients=found.gradients,
        frequencies=found.frequencies,
        fishers=found.fishers,
        batch_tokens=found.tokens / len(ids),
    )
    text = torch.cat(ids)
    with torch.no_grad():
        chances, before = model(text).softmax(-1), model(text).log_softmax(-1)
    weights = dict(model.named_parameters())
    assert found.hessians.keys() | found.fishers.keys() == weights.keys()
    for name, weight in weights.items():
        if name == "wte.weight":  # its lookups and its products are not independent
            continue
        exact, predicted, measured = weight.detach().clone(), [], []
        for _ in range(12):
            error = 0.02 * random.standard_normal(tuple(weight.shape)).astype(np.float32)
            predicted.append(added_nats(name, np.zeros_like(error), error, layers))
            with torch.no_grad():
                weight.copy_(exact + torch.from_numpy(error))
                measured.append(float((chances * (before - model(text).log_softmax(-1))).sum(-1).mean()))
                weight.copy_(exact)
        assert np.mean(predicted) == pytest.approx(np.mean(measured), rel=0.35), name


def test_relative_change_predicts_half_the_energy_of_the_change():
    model, ids = Small(), batches(40)
    found = hooked(model, ids, relative_change).calibration()
    text, random = torch.cat(ids), np.random.default_rng(4)
    layers = Layers(hessians=found.hessians, sensitivities=found.sensitivities, batch_tokens=found.tokens / len(ids))
    exact, predicted, measured = model.down.weight.detach().clone(), [], []
    with torch.no_grad():
        before = model(text)
        for _ in range(12):
            error = 0.02 * random.standard_normal(tuple(exact.shape)).astype(np.float32)
            predicted.append(added_nats("down.weight", np.zeros_like(error), error, layers))
            model.down.weight.copy_(exact + torch.from_numpy(error))
            measured.append(float((model(text) - before).square().sum() / before.square().sum()) / 2)
    assert np.mean(predicted) == pytest.approx(np.mean(measured), rel=0.25)


def test_nothing_of_the_module_changes():
    model = Small()
    model.norm.bias.requires_grad_(False)
    before = {name: (weight.requires_grad, weight.detach().clone()) for name, weight in model.named_parameters()}
    hooks = Hooks(model)

    def failing():
        with hooks:
            assert not model.down.weight.requires_grad
            with torch.no_grad():
                model(batches(1)[0])  # not seen
            hooks.step(sampled_loss(model(batches(1)[0]), torch.Generator()), tokens=32 * 12)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert hooks.calibration().tokens == 32 * 12
    assert hooks.calibration().frequencies["wte.weight"].sum() == pytest.approx(1)
    for name, weight in model.named_parameters():
        assert weight.requires_grad == before[name][0]
        assert torch.equal(weight, before[name][1])
        assert weight.grad is None
    assert not any(module._forward_hooks for module in model.modules())


def test_the_file_is_one_that_encode_reads(tmp_path):
    model, checkpoint, path = (
        Small(vocabulary=300),
        tmp_path / "model.safetensors",
        tmp_path / "calibration.safetensors",
    )
    tensors = {f"inner.{name}": weight.detach().clone() for name, weight in model.named_parameters()}
    save_file(tensors, checkpoint)
    generator = torch.Generator().manual_seed(0)
    with Hooks(model, prefix="inner.") as hooks:
        for ids in batches(4, 300):
            hooks.step(sampled_loss(model(ids), generator), tokens=ids.numel())
    found = hooks.write(path, checkpoint)
    values = {name: each.values for name, each in read_stored(checkpoint)[0].items()}
    layers = read_layers(path, checkpoint, values, checkpoint_sha256)
    assert layers.batch_tokens == 32 * 12
    assert np.array_equal(layers.hessians["inner.up.weight"], found.hessians["inner.up.weight"])
    assert layers.hessians.keys() == {"inner.wte.weight", "inner.up.weight", "inner.down.weight"}
    encoded = encode_checkpoint(checkpoint, calibration=path, bits_per_weight=9)
    assert encoded.nats is not None
    assert not any("guess" in note for note in encoded.notes)
    save_file({**tensors, "inner.norm.bias": torch.zeros(8)}, checkpoint)
    with pytest.raises(InputError, match="was made from a checkpoint of sha256"):
        encode_checkpoint(checkpoint, calibration=path)


@pytest.mark.parametrize(
    ("loss", "tokens"),
    [(torch.ones(2, requires_grad=True), 1), (torch.ones(()), 1), (torch.ones((), requires_grad=True), 0)],
)
def test_what_is_no_loss_is_one_sentence(loss, tokens):
    with Hooks(Small()) as hooks, pytest.raises(UsageError, match=r"pass a sum over the tokens"):
        hooks.step(loss, tokens=tokens)
    with pytest.raises(UsageError, match="no batch was seen"):
        hooks.calibration()
