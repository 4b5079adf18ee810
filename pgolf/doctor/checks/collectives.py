"""What ranks say to each other, on one rank: NCCL on a card, gloo on a CPU."""

import time
from tempfile import TemporaryDirectory

from pgolf.doctor.outcome import Measured, Row
from pgolf.doctor.plan import Plan

REPEATS = 10


def collectives(plan: Plan, seconds: float) -> Measured:
    """A mean over one rank changes nothing; the time is that of the library alone, no link is used."""
    import torch
    import torch.distributed as dist

    from trainer.compute.device import find_device, synchronize

    device = find_device(plan.device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"  # as trainer.compute.ranks joins
    with TemporaryDirectory(prefix="pgolf-doctor-") as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        values = torch.arange(plan.message_bytes // 4, dtype=torch.float32, device=device)
        summed, gathered = values.clone(), torch.empty_like(values)
        dist.all_reduce(summed)
        dist.all_gather([gathered], values)
        wrong = [
            f"{name} of one rank changed the tensor"
            for name, each in (("all_reduce", summed), ("all_gather", gathered))
            if not torch.equal(each, values)
        ]
        synchronize(device)
        started = time.perf_counter()
        for _ in range(REPEATS):
            dist.all_reduce(summed)
        synchronize(device)
        milliseconds = 1000 * (time.perf_counter() - started) / REPEATS
        dist.destroy_process_group()
    row: Row = {
        "backend": "nccl" if device.type == "cuda" else "gloo",
        "bytes": plan.message_bytes,
        "all_reduce ms": milliseconds,
    }
    return Measured(rows=(row,), wrong=tuple(wrong))
