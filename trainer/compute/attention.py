"""Which implementation of attention runs: FlashAttention 3, FlashAttention 2 or torch's own, chosen once per run.

The two packages are optional and run on NVIDIA GPUs only.  Their layout and casts are tested with stand-ins on a CPU;
their speed and their numbers on a GPU are unmeasured (`pgolf doctor --gpu` measures them).
"""

from collections.abc import Callable, Iterator
from importlib import import_module

import torch
from torch import Tensor

from trainer.model.gpt import Attend, sdpa

HALF = (torch.bfloat16, torch.float16)


def choose_attention(device: torch.device, dtype: torch.dtype) -> tuple[str, Attend]:
    """(name for the log, function) of the fastest attention that the device, its packages and `dtype` allow."""
    return next(implementations(device, dtype))


def implementations(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Attend]]:
    """All that the device, its packages and `dtype` allow, the fastest first, torch's own last.

    Source: FlashAttention 3 needs compute capability 9 (Hopper), FlashAttention 2 needs 8 (Ampere) or later.
    """
    if device.type == "cuda" and dtype in HALF:
        major, _ = torch.cuda.get_device_capability(device)
        wanted = [("flash-attention-3", "flash_attn_interface")] if major == 9 else []
        wanted += [("flash-attention-2", "flash_attn")] if major >= 8 else []
        for name, package in wanted:
            if (function := _found(package)) is not None:
                yield name, _attend(function, dtype)
    yield "sdpa", sdpa


def _found(package: str) -> Callable[..., Tensor] | None:
    """The package's attention function; None when it is missing or was built for another torch."""
    try:
        function: Callable[..., Tensor] = import_module(package).flash_attn_func
    except (ImportError, OSError, AttributeError):
        return None
    return function


def _attend(function: Callable[..., Tensor], dtype: torch.dtype) -> Attend:
    """The packages take (B, T, heads, width) and grouped heads as the model has them, but only half precision."""

    def attend(q_BTHK: Tensor, k_BTJK: Tensor, v_BTJK: Tensor) -> Tensor:
        y_BTHK = function(q_BTHK.to(dtype), k_BTJK.to(dtype), v_BTJK.to(dtype), causal=True)
        if isinstance(y_BTHK, tuple):  # early versions of 3 give the softmax sums as well
            y_BTHK = y_BTHK[0]
        return y_BTHK.to(v_BTJK.dtype)

    return attend
