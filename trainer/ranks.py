"""The processes of a data-parallel run and what they say to each other; one process alone needs no launcher."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from codec.errors import EnvironmentLacks, PgolfError

# A rank that dies closes its connections, which the others notice at once.  The limit is for one that stands still; it
# is long because all others wait while the first rank validates.
PATIENCE = timedelta(minutes=30)


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
        """What torchrun says through its environment variables; a lone process when it did not start this one."""
        rank, world, local = (int(os.environ.get(name) or 0) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(rank=rank, world=max(world, 1), local=local)

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """All processes have arrived and can talk: tensors by NCCL between GPUs, everything else by gloo.

        Raises: EnvironmentLacks when nothing says how the others are reached; RankLost when they do not come.
        """
        if self.world == 1:
            yield
            return
        with _heard():
            try:
                # gloo on GPUs as well: flags and clocks need no kernel, and it notices a dead process at once.
                dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
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
        with _heard():
            dist.all_reduce(flat)
        parts = flat.div_(self.world).split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    def gather(self, part: Tensor) -> Tensor:
        """(n, ...) of every rank -> (world * n, ...), in order of ranks."""
        if self.world == 1:
            return part
        whole = part.new_empty(self.world, *part.shape)
        with _heard():
            dist.all_gather(list(whole.unbind()), part.contiguous())
        return whole.flatten(0, 1)

    def agree(self, values: list[float]) -> list[float]:
        """The first rank's values, so that clocks that differ lead to one decision."""
        if self.world == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64)
        with _heard():
            dist.broadcast(shared, 0)
        return shared.tolist()

    def any(self, flag: bool) -> bool:
        """Whether it is true on some rank."""
        if self.world == 1:
            return flag
        count = torch.tensor(int(flag))
        with _heard():
            dist.all_reduce(count)
        return bool(count)


@contextmanager
def _heard() -> Iterator[None]:
    """Failures of the messages inside, whatever their backend, as one sentence."""
    try:
        yield
    except RuntimeError as error:
        # gloo leads with the place in its source and ends with advice.
        reason = re.sub(r"^\[.*?\] *", "", str(error)).split("\n")[0].split(". ")[0]
        raise RankLost(
            f"another process of this run ended or does not answer ({reason})",
            hint="see its own output; the last saved state is kept: start again with --resume",
        ) from None
