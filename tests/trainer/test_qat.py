"""Rounding in training is the codec's, bit by bit, and leaves nothing behind but gradients."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from codec.decoder import QuantizedTensor
from codec.errors import UsageError
from codec.quantization.recipe import Recipe, Rule, quantize_checkpoint
from codec.quantization.recipe_files import load_recipe, recipe_names
from trainer.model.gpt import GPT
from trainer.optim.qat import fake_quantized, rounded
from trainer.presets.catalog import PRESETS

RULES = [
    Rule.of(treatment="int6"),
    Rule.of(treatment="int4", symmetric=True),
    Rule.of(treatment="int8", step="absmax", symmetric=True),
    Rule.of(treatment="int6", step="floor"),
    Rule.of(treatment="int5", step="floor", symmetric=True),
    Rule.of(treatment="int6", step="std", k=12.85, gptq=True),
    Rule.of(treatment="int8", step="std", k=20.0),
    Rule.of(treatment="int6", step="std", k=3.0),
    Rule.of(treatment="int6", step="power"),
    Rule.of(treatment="int6", step="search"),
    Rule.of(treatment="int3", step="five"),
    Rule.of(treatment="int6", granularity="tensor"),
    Rule.of(treatment="int6", granularity="column"),
    Rule.of(treatment="int5", granularity="column", step="search", block=3),
    Rule.of(treatment="int6", granularity="row-column"),
    Rule.of(treatment="int6", granularity="row-column", step="std", k=12.85, block=4),
    Rule.of(treatment="int8"),
    Rule.of(treatment="int8-tensor"),
]
# Just large enough for the recipes that leave tensors up to 65,536 weights alone.
TINY = replace(PRESETS["tiny"].model, vocab_size=2304, mlp_hidden=2112)


def dequantized(treated):
    return treated.dequantize() if isinstance(treated, QuantizedTensor) else treated.astype(np.float32)


def same(weights: np.ndarray, rule: Rule):
    ours = rounded(torch.from_numpy(weights), rule.quantizer).numpy()
    assert ours.dtype == np.float32
    assert np.array_equal(ours, dequantized(rule.apply(weights)))


@pytest.mark.parametrize("seed", ["162", "339", "1176", "1716"])
def test_rounding_is_the_codecs_on_the_golden_matrices(shared, seed):
    with np.load(shared / f"data/golden/{seed}/quantize.npz") as arrays:
        inputs = [arrays[name] for name in arrays if name.startswith("in/")]
    assert len(inputs) >= 8
    for weights in inputs:
        for rule in RULES:
            same(weights.astype(np.float32), rule)


@given(
    st.sampled_from(RULES),
    st.lists(st.integers(1, 40), min_size=0, max_size=3),
    st.sampled_from([1e-9, 1e-5, 0.02, 1.0, 300.0]),
    st.integers(0, 10**6),
)
@example(RULES[-2], [3, 700], 0.02, 0)  # a row whose 0.9999984 quantile lies between two weights
def test_rounding_is_the_codecs_on_random_weights(rule, shape, scale, seed):
    random = np.random.default_rng(seed)
    weights = np.asarray(random.standard_t(3, shape) * scale, np.float32)
    weights[random.random(shape) < 0.1] = 0
    same(weights, rule)


def model_of(seed):
    torch.manual_seed(seed)
    return GPT(TINY)


def batch():
    ids = torch.randint(0, TINY.vocab_size, (2, TINY.seq_len + 1), generator=torch.Generator().manual_seed(5))
    return ids[:, :-1], ids[:, 1:]


@pytest.mark.parametrize("name", [name for name in recipe_names() if name != "best"])
def test_inside_the_model_is_the_unpacked_one(name):
    model, recipe = model_of(1), load_recipe(name)
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    wanted = quantize_checkpoint({key: weight.numpy() for key, weight in before.items()}, recipe)
    with fake_quantized(model, recipe):
        inside = {key: weight.clone() for key, weight in model.state_dict().items()}
    assert list(inside) == list(before)
    for key, treated in wanted.items():
        if isinstance(treated, QuantizedTensor):
            assert np.array_equal(inside[key].numpy(), treated.dequantize())
        else:  # float16 costs nothing to speak of: those stay as they are
            assert torch.equal(inside[key], before[key])
        assert torch.equal(model.state_dict()[key], before[key])


SMALL = load_recipe("pr162-small")


def test_gradients_pass_straight_through():
    """They are those of the model that holds the rounded weights, whatever the float weights are."""
    model, copy = model_of(2), model_of(2)
    names = {name for name, weight in model.named_parameters() if weight.numel() > 2048}
    assert names
    wanted = quantize_checkpoint({name: w.detach().numpy() for name, w in copy.named_parameters()}, SMALL)
    copy.load_state_dict({name: torch.from_numpy(dequantized(wanted[name])) for name in names}, strict=False)
    with fake_quantized(model, SMALL):
        for _ in range(2):  # micro-batches
            model(*batch()).backward()
    for _ in range(2):
        copy(*batch()).backward()
    for ours, theirs in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_training_lowers_the_loss_of_the_rounded_model():
    """Three bits: steps far larger than any update, so only the float weights behind them can add updates up."""
    coarse = Recipe(name="coarse", about="", coder="zstd-22", rules=(Rule.of(treatment="int3"),))
    model = model_of(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    losses = []
    for _ in range(20):
        model.zero_grad()
        with fake_quantized(model, coarse):
            loss = model(*batch())
            loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_weights_come_back_after_an_error():
    model = model_of(4)
    before = [weight.detach().clone() for weight in model.parameters()]
    with contextlib.suppress(ZeroDivisionError), fake_quantized(model, SMALL):
        raise ZeroDivisionError
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_backward_pass_outside_is_refused():
    model = model_of(5)
    with fake_quantized(model, SMALL):
        loss = model(*batch())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_compiled_model_is_not_compiled_again():
    compiled_graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]):
        compiled_graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    model = model_of(6)
    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        floats = compiled(*batch()).item()
        count = len(compiled_graphs)
        with fake_quantized(model, SMALL):
            inside = compiled(*batch()).item()
            assert inside == model(*batch()).item()
        assert inside != floats == compiled(*batch()).item()
    assert len(compiled_graphs) == count > 0


class Numbers:
    """A quantizer without a formula: it can be packed with, not trained with."""

    wants_hessian = False

    def quantize(self, weights, hessian=None):
        return QuantizedTensor(np.zeros(weights.shape, np.int8), np.zeros(len(weights), np.float16))


WITHOUT_FORMULA = Recipe(
    name="mine",
    about="",
    coder="zstd-22",
    rules=(Rule(names=("*.mlp.*",), treatment="numbers", quantizer=Numbers()), Rule(treatment="float16")),
)


def test_a_quantizer_without_a_formula_is_refused():
    model = model_of(7)
    before = [weight.detach().clone() for weight in model.parameters()]
    words = "^recipe mine, tensor `blocks.0.mlp.fc.weight`: training cannot round with treatment `numbers`"
    with pytest.raises(UsageError, match=words), fake_quantized(model, WITHOUT_FORMULA):
        pytest.fail("entered")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_recipe_best_is_for_packing():
    words = (
        "^recipe best, tensor `skip_weights`: training cannot round with treatment `rate-distortion`, which has no "
        "formula; train with a recipe like pr339$"
    )
    with pytest.raises(UsageError, match=words), fake_quantized(model_of(8), load_recipe("best")):
        pytest.fail("entered")
