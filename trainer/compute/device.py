"""Where a run computes, in which precision, with how many threads, compiled or not."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from codec.errors import EnvironmentLacks, UsageError
from trainer.model.gpt import GPT

Forward = Callable[[Tensor, Tensor], Tensor]  # (inputs, targets) -> loss


def find_device(name: str, local: int = 0) -> torch.device:
    """ "cpu", "cuda" or "auto"; on CUDA the GPU of number `local`.

    Raises: UsageError for another name; EnvironmentLacks without that GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UsageError(f"there is no device `{name}`", hint="devices: auto, cpu, cuda")
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EnvironmentLacks("no CUDA device is available to torch", hint="train with --device cpu")
    if local >= torch.cuda.device_count():
        raise EnvironmentLacks(
            f"this machine has {torch.cuda.device_count()} GPUs, process {local} on it needs one of its own",
            hint="start as many processes as there are GPUs",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def precision(device: torch.device) -> torch.dtype:
    """The dtype of matrix products: float32 on CPUs, most of which emulate bfloat16 at half the speed."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """The context in which the model runs in that precision."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to_device(model: GPT, device: torch.device) -> None:
    """Move the model to the device; on CUDA its embeddings become bfloat16."""
    model.to(device)
    if device.type == "cuda":
        halve_embeddings(model)


def halve_embeddings(model: GPT) -> None:
    """Embedding tables in bfloat16, so that the stream is; matrices, vectors and scalars stay float32.

    Source: all four seed systems, which train the tables in bfloat16 as well.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.bfloat16()


def compiled(model: GPT, device: torch.device) -> Forward:
    """The model's loss through torch.compile; the model itself, its names and its `logits` stay as they are.

    Raises: EnvironmentLacks when torch cannot compile here, found out on a function of one addition.
    """
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise EnvironmentLacks(
            f"torch.compile does not work here ({reason})",
            hint="install a C++ compiler (on a GPU: triton), or train with --no-compile",
        ) from None
    return torch.compile(model, dynamic=False)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """torch with that many CPU threads; None = as many as it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
