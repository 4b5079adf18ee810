"""One forward and backward pass in bfloat16, as training has it on a GPU, against the same in float32."""

from typing import TYPE_CHECKING

from pgolf.doctor.checks.synthetic import tokens, weights
from pgolf.doctor.outcome import Measured, Row
from pgolf.doctor.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.model.gpt import GPT

PRESET = "pr162"
# Relative.  A guess: no card has run it.  bfloat16 errors are 0.4 % each and of both signs, and a loss averages over
# thousands of targets; 5 % of a norm and a cosine of 0.95 would be a different gradient, not a rounded one.
LOSS, NORM, COSINE = 0.005, 0.05, 0.95


def precision(plan: Plan, seconds: float) -> Measured:
    """Loss, norm of the gradient, and the least cosine of a matrix's two gradients."""
    import torch

    from trainer.compute.attention import choose_attention
    from trainer.compute.device import find_device, halve_embeddings
    from trainer.model.gpt import GPT

    device, config = find_device(plan.device), plan.preset(PRESET).model
    state = {name: torch.from_numpy(array) for name, array in weights(config).items()}
    drawn = tokens(plan.sequences * (config.seq_len + 1), config.vocab_size).astype("int64")
    rows = torch.from_numpy(drawn).view(plan.sequences, -1).to(device)

    def built(attend) -> "GPT":  # type: ignore[no-untyped-def]
        model = GPT(config, attend)
        model.load_state_dict(state)
        return model.to(device)

    full = built(choose_attention(device, torch.float32)[1])
    name, attend = choose_attention(device, torch.bfloat16)
    half = built(attend)
    halve_embeddings(half)
    wanted = _pass(full, rows)
    with torch.autocast(device.type, torch.bfloat16):
        loss = half(rows[:, :-1], rows[:, 1:])
    found = _finished(half, loss)
    losses, norms = abs(found[0] / wanted[0] - 1), abs(found[1] / wanted[1] - 1)
    cosine = _least_cosine(found[2], wanted[2])
    wrong = []
    if not losses <= LOSS or not norms <= NORM or not cosine >= COSINE:
        wrong.append(
            f"loss off by {losses:.2%} (allowed {LOSS:.1%}), norm by {norms:.2%} ({NORM:.0%}), "
            f"least cosine {cosine:.3f} ({COSINE})"
        )
    row: Row = {
        "preset": PRESET,
        "attention": name,
        "loss, float32": wanted[0],
        "loss, bfloat16": found[0],
        "gradient norm, float32": wanted[1],
        "gradient norm, bfloat16": found[1],
        "least cosine": cosine,
    }
    return Measured(rows=(row,), wrong=tuple(wrong), notes=("weights are random; the tolerances are a guess",))


def _pass(model: "GPT", rows: "Tensor") -> "tuple[float, float, dict[str, Tensor]]":
    return _finished(model, model(rows[:, :-1], rows[:, 1:]))


def _finished(model: "GPT", loss: "Tensor") -> "tuple[float, float, dict[str, Tensor]]":
    """(loss, norm of the gradient, gradients of the matrices by name)"""
    import torch

    loss.backward()
    found = {name: weight.grad.float() for name, weight in model.named_parameters() if weight.grad is not None}
    norm = torch.stack([each.norm() for each in found.values()]).norm().item()
    return loss.item(), norm, {name: each for name, each in found.items() if each.ndim == 2}


def _least_cosine(found: "dict[str, Tensor]", wanted: "dict[str, Tensor]") -> float:
    from torch.nn.functional import cosine_similarity

    cosines = [
        cosine_similarity(found[name].flatten(), each.flatten(), dim=0).item() if name in found else 0.0
        for name, each in wanted.items()
    ]
    return min(cosines)
