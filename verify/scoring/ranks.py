"""Splitting work over ranks: simulated one after the other, or the processes of a torch.distributed group."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed

from codec.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Work is cut into `count` contiguous parts, of which this process does the one of `rank`, or all (None).

    message: made around every message to the others, for whoever turns its errors into words.
    """

    count: int = 1
    rank: int | None = None
    message: Callable[[], AbstractContextManager[None]] = nullcontext

    @classmethod
    def of(cls, ranks: "int | Ranks") -> "Ranks":
        """All of `ranks` parts in this process, one after the other.

        Raises: UsageError for fewer than one.
        """
        found = ranks if isinstance(ranks, Ranks) else cls(count=ranks)
        if found.count < 1:
            raise UsageError(f"{found.count} ranks, need at least 1")
        return found

    @classmethod
    def joined(cls, message: Callable[[], AbstractContextManager[None]] = nullcontext) -> "Ranks":
        """This process as a member of the default process group, which `torchrun` scripts initialise."""
        group = torch.distributed
        return cls(count=group.get_world_size(), rank=group.get_rank(), message=message)

    def parts(self, items: Sequence[Item]) -> Iterator[tuple[bool, Sequence[Item]]]:
        """(whether it is ours, items) of each part in order; parts may be empty."""
        for part in range(self.count):
            start, stop = len(items) * part // self.count, len(items) * (part + 1) // self.count
            yield self.rank in (None, part), items[start:stop]

    def add(self, *tensors: torch.Tensor) -> None:
        """Replace each tensor by its sum over the processes; nothing to do when one process does everything.

        Tensors stay where they are, so a group on GPUs needs a backend for CPU tensors too; torch's default has it.
        """
        if self.rank is not None:
            for tensor in tensors:
                with self.message():
                    torch.distributed.all_reduce(tensor)
