"""Which attention is chosen, and that every one gives torch's numbers: on a CPU with stand-ins for the packages."""

import sys
from types import ModuleType

import pytest
import torch

from tests.trainer.processors import FEW_OPERATIONS
from tests.trainer.shrunk import small_preset
from trainer.compute.attention import choose_attention
from trainer.model.gpt import GPT, sdpa

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; unmeasured so far")


def by_hand(q, k, v, causal):
    """Causal softmax attention in the packages' layout, head by head; query head h reads key/value head h // group."""
    assert causal
    heads, group = q.shape[2], q.shape[2] // k.shape[2]
    mask = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril()
    outputs = []
    for head in range(heads):
        scores = q[:, :, head].float() @ k[:, :, head // group].float().mT / q.shape[-1] ** 0.5
        outputs.append(scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v[:, :, head // group].float())
    return torch.stack(outputs, dim=2).to(q.dtype)


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a GPU of some compute capability where these packages are installed."""

    def pretend(capability, **packages):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        for name in ("flash_attn_interface", "flash_attn"):
            module = ModuleType(name)
            if name in packages:
                module.flash_attn_func = packages[name]
            monkeypatch.setitem(sys.modules, name, module if name in packages else None)

    return pretend


def recorded(seen, result=lambda y: y):
    def flash_attn_func(q, k, v, causal=False):
        seen.append((q.dtype, k.dtype, v.dtype))
        return result(by_hand(q, k, v, causal))

    return flash_attn_func


def heads(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 9, count, 8, generator=generator).to(dtype) for count in (4, 2, 2)]


def test_torchs_attention_is_causal_softmax():
    q, k, v = heads()
    assert (sdpa(q, k, v) - by_hand(q, k, v, True)).abs().max() < FEW_OPERATIONS
    assert choose_attention(CPU, torch.float32) == ("sdpa", sdpa)
    assert choose_attention(CPU, torch.bfloat16) == ("sdpa", sdpa)


@pytest.mark.parametrize(
    ("capability", "dtype", "packages", "name"),
    [
        ((9, 0), torch.bfloat16, {"flash_attn_interface", "flash_attn"}, "flash-attention-3"),
        ((9, 0), torch.bfloat16, {"flash_attn"}, "flash-attention-2"),
        ((9, 0), torch.float32, {"flash_attn_interface", "flash_attn"}, "sdpa"),
        ((8, 6), torch.float16, {"flash_attn_interface", "flash_attn"}, "flash-attention-2"),
        ((10, 0), torch.bfloat16, {"flash_attn_interface"}, "sdpa"),
        ((7, 5), torch.float16, {"flash_attn"}, "sdpa"),
        ((9, 0), torch.bfloat16, set(), "sdpa"),
    ],
)
def test_the_choice(machine, capability, dtype, packages, name):
    machine(capability, **dict.fromkeys(packages, by_hand))
    assert choose_attention(CUDA, dtype)[0] == name


def test_a_package_built_for_another_torch_is_passed_over(machine, monkeypatch):
    machine((9, 0), flash_attn=by_hand)
    monkeypatch.setitem(sys.modules, "flash_attn_interface", ModuleType("flash_attn_interface"))
    assert choose_attention(CUDA, torch.bfloat16)[0] == "flash-attention-2"


@pytest.mark.parametrize("result", [lambda y: y, lambda y: (y, None)])
def test_packages_get_half_precision_and_give_the_models_dtype(machine, result):
    seen = []
    machine((9, 0), flash_attn_interface=recorded(seen, result))
    _, attend = choose_attention(CUDA, torch.bfloat16)
    q, k, v = heads()
    y = attend(q, k, v)
    assert seen == [(torch.bfloat16,) * 3]
    assert y.dtype == torch.float32
    assert (y - sdpa(q, k, v)).abs().max() < 0.03
    assert attend(q, k.bfloat16(), v.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["pr162", "pr1176", "pr1716"])
def test_a_model_on_a_package_has_the_same_logits(machine, name):
    machine((9, 0), flash_attn_interface=by_hand)
    _, attend = choose_attention(CUDA, torch.bfloat16)
    config = small_preset(name).model
    torch.manual_seed(0)
    ours, wanted = GPT(config, attend), GPT(config)
    wanted.load_state_dict(ours.state_dict())
    ids = torch.randint(0, config.vocab_size, (2, 16))
    difference = (ours.logits(ids) - wanted.logits(ids)).abs()
    assert difference.mean() < 0.02 * wanted.logits(ids).abs().mean()
    assert difference.max() > 0


@on_a_gpu
def test_the_chosen_attention_is_torchs_on_this_gpu():
    """Output and gradients; bfloat16 keeps 8 bits."""
    name, attend = choose_attention(torch.device("cuda", 0), torch.bfloat16)
    generator = torch.Generator("cuda").manual_seed(0)
    inputs = [torch.randn(2, 300, count, 64, device="cuda", generator=generator) for count in (8, 4, 4)]
    results = []
    for function in (attend, sdpa):
        leaves = [tensor.bfloat16().requires_grad_() for tensor in inputs]
        output = function(*leaves)
        output.float().square().sum().backward()
        results.append([output, *(leaf.grad for leaf in leaves)])
    for ours, wanted in zip(*results, strict=True):
        assert ours.dtype == torch.bfloat16, name
        assert (ours - wanted).float().norm() < 0.02 * wanted.float().norm(), name
