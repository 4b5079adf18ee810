"""Every implementation of attention that this machine has, against attention in float32 written out."""

from typing import TYPE_CHECKING

from pgolf.doctor.outcome import Measured, Row
from pgolf.doctor.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

# Relative error of the whole tensor.  bfloat16 keeps 8 bits: one rounding of the result is 0.2 % of it; probabilities
# and, backwards, their gradients are rounded as well.  float32: sums in another order.
TOLERANCE = {"bfloat16": (0.01, 0.02), "float32": (1e-5, 1e-5)}  # of the output, of a gradient


def attention(plan: Plan, seconds: float) -> Measured:
    """Output and gradients of each, and its time, forwards and backwards."""
    import torch

    from trainer.compute.attention import implementations
    from trainer.compute.device import find_device, precision

    device = find_device(plan.device)
    dtype = precision(device)
    batch, length, heads, kv_heads, width = plan.attention
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> "Tensor":
        return torch.randn(batch, length, count, width, generator=generator).to(device, dtype)

    inputs, gradient = [drawn(heads), drawn(kv_heads), drawn(kv_heads)], drawn(heads)
    wanted = _with_gradients(_written_out, [each.float() for each in inputs], gradient.float())
    kind = str(dtype).removeprefix("torch.")
    rows: list[Row] = []
    wrong: list[str] = []
    for name, attend in implementations(device, dtype):
        try:
            found = _with_gradients(attend, inputs, gradient)
            milliseconds = _milliseconds(lambda attend=attend: _with_gradients(attend, inputs, gradient), device)
        except (RuntimeError, TypeError) as error:  # a package built for another card or torch
            rows.append({"attention": name, "dtype": kind})
            wrong.append(f"{name} does not run: {str(error).splitlines()[0]}")
            continue
        output, *gradients = (_error(each, other) for each, other in zip(found, wanted, strict=True))
        row: Row = {"attention": name, "dtype": kind, "output error": output, "worst gradient error": max(gradients)}
        rows.append({**row, "forward + backward ms": milliseconds})
        limits = TOLERANCE[kind]
        if not (output <= limits[0] and max(gradients) <= limits[1]):
            wrong.append(f"{name}: errors {output:.2g} and {max(gradients):.2g}, allowed {limits[0]} and {limits[1]}")
    missing = [
        name for name in ("flash-attention-3", "flash-attention-2") if name not in {row["attention"] for row in rows}
    ]
    return Measured(
        rows=tuple(rows),
        wrong=tuple(wrong),
        notes=(f"not there, so not measured: {', '.join(missing)}",) if missing else (),
    )


def _written_out(q_BTHK: "Tensor", k_BTJK: "Tensor", v_BTJK: "Tensor") -> "Tensor":
    """softmax(q k^T / sqrt(K)) v, causal, grouped heads repeated, in the dtype of its inputs."""
    import torch

    group = q_BTHK.shape[2] // k_BTJK.shape[2]
    k_BTHK, v_BTHK = (each.repeat_interleave(group, dim=2) for each in (k_BTJK, v_BTJK))
    scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BTHK) / q_BTHK.shape[-1] ** 0.5
    hidden_TS = torch.ones(scores_BHTS.shape[-2:], dtype=torch.bool, device=q_BTHK.device).triu(1)
    chances_BHTS = scores_BHTS.masked_fill(hidden_TS, -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshk->bthk", chances_BHTS, v_BTHK)


def _with_gradients(attend, inputs: "list[Tensor]", gradient: "Tensor") -> "list[Tensor]":  # type: ignore[no-untyped-def]
    """Output, and the gradients of queries, keys and values, when `gradient` is that of the output."""
    import torch

    leaves = [each.detach().requires_grad_() for each in inputs]
    output = attend(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]


def _error(found: "Tensor", wanted: "Tensor") -> float:
    return float((found.float() - wanted).norm() / wanted.norm())


def _milliseconds(work, device) -> float:  # type: ignore[no-untyped-def]
    """Median of 5 after one."""
    import time
    from statistics import median

    from trainer.compute.device import synchronize

    work()
    taken = []
    for _ in range(5):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        taken.append(1000 * (time.perf_counter() - started))
    return median(taken)
