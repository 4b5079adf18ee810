"""The processes of a data-parallel run and what they say to each other; one process alone needs no launcher."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from codec.errors import EnvironmentLacks, PgolfError, UsageError

# A rank that dies closes its connections, which the others notice at once.  The limits are for one that stands still:
# in a step or a shared validation, saving included, and while the first rank alone calibrates and packs.
TIMEOUT = timedelta(minutes=30)
LONG_TIMEOUT = timedelta(days=2)
STORE_TIMEOUT = timedelta(seconds=10)  # of the launcher, which runs on after a rank died


class RankLost(PgolfError):
    """Another process of the run ended or does not answer; exit code 3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """rank: this process's number among `world`.  local: its number on its machine, which decides its GPU.

    With world 1 every method is the identity.
    Raises: RankLost, from every method that talks to the others, when one of them is gone.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def launched(cls) -> "Ranks":
        """What torchrun says through its environment variables; a lone process when it did not start this one.

        Raises: UsageError when they are no numbers, or no rank of that world.
        """
        rank = _number("RANK", os.environ.get("RANK"))
        world = _number("WORLD_SIZE", os.environ.get("WORLD_SIZE"))
        local = _number("LOCAL_RANK", os.environ.get("LOCAL_RANK"))
        if rank >= max(world, 1):
            raise UsageError(
                f"the environment says RANK {rank}, but WORLD_SIZE {world}", hint="start with torchrun, or unset both"
            )
        return cls(rank=rank, world=max(world, 1), local=local)

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def first_to_report_loss(self) -> bool:
        """Whether this process is the one of all that noticed a loss that tells the user: the first to ask.

        The launcher keeps the list; when it does not answer, everyone speaks.
        """
        try:
            store, _, _ = next(rendezvous("env://", timeout=STORE_TIMEOUT))
            return bool(store.add("pgolf/lost", 1) == 1)
        except (RuntimeError, ValueError):
            return True

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """All processes have arrived and can talk: tensors by NCCL between GPUs, everything else by gloo.

        Inside another `joined` it does nothing: a second group under one launcher would meet the first one's addresses.
        Raises: EnvironmentLacks when nothing says how the others are reached; RankLost when they do not come.
        """
        if self.world == 1 or dist.is_initialized():
            yield
            return
        with failures_mean_loss():
            try:
                # gloo on GPUs as well: flags and clocks need no kernel, and it notices a dead process at once.  NCCL
                # waits for one in silence, so all call `barrier` before it is used.
                dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
            except ValueError as error:
                raise EnvironmentLacks(
                    f"WORLD_SIZE says {self.world} processes, but not how to reach them ({error})",
                    hint="start them with torchrun",
                ) from None
        yield
        dist.destroy_process_group()  # only on a clean end: with a rank gone, leaving would wait for it

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks, in place; one message for all."""
        if self.world == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with failures_mean_loss():
            dist.all_reduce(flat)
        parts = flat.div_(self.world).split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    def gather(self, part: Tensor) -> Tensor:
        """(n, ...) of every rank -> (world * n, ...), in order of ranks."""
        if self.world == 1:
            return part
        whole = part.new_empty(self.world, *part.shape)
        with failures_mean_loss():
            dist.all_gather(list(whole.unbind()), part.contiguous())
        return whole.flatten(0, 1)

    def broadcast(self, values: list[float], group: dist.ProcessGroup | None = None) -> list[float]:
        """The first rank's values, so that clocks that differ lead to one decision."""
        if self.world == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64)
        with failures_mean_loss():
            dist.broadcast(shared, 0, group=group)
        return shared.tolist()

    @contextmanager
    def long_timeout_group(self) -> Iterator[Callable[[list[float]], list[float]]]:
        """`broadcast` for what the first rank alone works out inside; the others wait for it much longer."""
        if self.world == 1:
            yield self.broadcast
            return
        with failures_mean_loss():
            group = dist.new_group(timeout=LONG_TIMEOUT, backend="gloo")
        yield partial(self.broadcast, group=group)
        dist.destroy_process_group(group)

    def barrier(self) -> None:
        """All ranks have come this far."""
        self.any_true(False)

    def any_true(self, flag: bool) -> bool:
        """Whether it is true on some rank."""
        if self.world == 1:
            return flag
        count = torch.tensor(int(flag))
        with failures_mean_loss():
            dist.all_reduce(count)
        return bool(count)


@contextmanager
def failures_mean_loss() -> Iterator[None]:
    """Failures of the messages inside, whatever their backend, as one sentence."""
    try:
        yield
    except RuntimeError as error:
        # gloo leads with the place in its source and ends with advice.
        reason = re.sub(r"^\[.*?\] *", "", str(error)).split("\n")[0].split(". ")[0]
        raise RankLost(
            f"another process of this run ended or does not answer ({reason})",
            hint="see its own output; started again (`pgolf train` with --resume) it goes on from its last saved state",
        ) from None


def _number(name: str, text: str | None) -> int:
    text = text or "0"
    if not (text.isascii() and text.isdigit()):
        raise UsageError(
            f"{name} is `{text}` in the environment, not a number", hint="start with torchrun, or unset it"
        )
    return int(text)
