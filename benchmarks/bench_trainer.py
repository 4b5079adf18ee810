"""Training on one CPU thread: tokens per CPU-second of each part of a step, beside the same step of library parts.

python -m benchmarks.bench_trainer --output results/bench_trainer.json
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from benchmarks.machine import describe, high_water
from codec.errors import PgolfError
from codec.storage.atomic_files import write_bytes
from pgolf.console import print_table
from trainer.model.gpt import GPT
from trainer.model.init import initialize
from trainer.optim.muon import optimizers
from trainer.presets.catalog import PRESETS
from trainer.presets.preset import Preset

VERSIONS = ("parameter-golf-kit", "numpy", "torch")
PARTS = ("forward", "forward_backward", "muon", "adamw", "peer_muon", "peer_adamw")
COLUMNS = (
    "model",
    "forward",
    "forward + backward",
    "step, tokens per CPU-s",
    "wanted",
    "library step",
    "Muon ms",
    "library ms",
    "Muon's share",
    "peak MB",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """preset: model and run.  tokens: of one measured pass, a step of the preset if None.  passes: the best counts.

    wanted: tokens per CPU-second that the project set itself, by name of the figure.
    """

    name: str
    preset: Preset
    compiled: bool = False
    tokens: int | None = None
    passes: int = 5
    wanted: dict[str, float]


_FULL = PRESETS["pr162"]
SUBJECTS = (
    Subject(name="4x128", preset=PRESETS["cpu-demo"], wanted={"step": 4000}),
    Subject(name="4x128 compiled", preset=PRESETS["cpu-demo"], compiled=True, wanted={"step": 4000}),
    Subject(name="4x192", preset=PRESETS["cpu-bench"], wanted={"step": 2400}),
    Subject(name="4x192 compiled", preset=PRESETS["cpu-bench"], compiled=True, wanted={"step": 3600}),
    Subject(
        name="pr162, T=512",
        preset=replace(
            _FULL,
            model=replace(_FULL.model, seq_len=512),
            train=replace(_FULL.train, seq_len=512, micro_batch=2),
        ),
        tokens=1024,
        passes=2,
        wanted={"forward": 750, "forward_backward": 265},
    ),
)
QUICK = (Subject(name="tiny", preset=PRESETS["tiny"], passes=1, wanted={}),)


@click.command()
@click.option("--quick", is_flag=True, help="A tiny model, every time taken once.")
@click.option("--output", type=click.Path(path_type=Path), help="Write everything as JSON.")
@click.option("--peak", "peak_of", hidden=True, help="Print the peak memory of two steps of this model.")
def bench(quick: bool, output: Path | None, peak_of: str | None):
    """Measure CPU time per part of a training step, one thread; the library's Muon and AdamW in the same process."""
    torch.set_num_threads(1)
    subjects = QUICK if quick else SUBJECTS
    if peak_of:
        click.echo(_peak(next(subject for subject in subjects if subject.name == peak_of)))
        return
    results = []
    for subject in subjects:
        results.append(_measure(subject, quick))
        click.echo(
            f"{subject.name}: {results[-1]['tokens_per_cpu_second']['step']:,.0f} tokens per CPU-second", err=True
        )
    _print(results)
    report = {"benchmark": "trainer", "quick": quick, "threads": 1, "machine": describe(VERSIONS), "results": results}
    if output:
        write_bytes(output, (json.dumps(report, indent=1) + "\n").encode())


class Rig:
    """A model with its batch, and two sets of optimizers: ours, and the library's for the same groups."""

    def __init__(self, subject: Subject) -> None:
        config, train = subject.preset.model, subject.preset.train
        generator = torch.Generator().manual_seed(0)
        self.tokens = subject.tokens or train.batch_tokens
        rows = torch.randint(config.vocab_size, (self.tokens // train.seq_len, train.seq_len + 1), generator=generator)
        size = train.micro_batch
        self.batches = [(part[:, :-1], part[:, 1:]) for part in rows.split(size)]
        self.model = GPT(config)
        initialize(self.model, 0)
        self.forward: Callable[[Tensor, Tensor], Tensor] = self.model
        if subject.compiled:
            self.forward = torch.compile(self.model, dynamic=False)
        self.muon, self.adamw = optimizers(self.model, train)

    def library(self) -> tuple[Optimizer, Optimizer]:
        """torch.optim.Muon, one matrix at a time in bfloat16, and AdamW as it comes, for the same groups."""
        (group,) = self.muon.param_groups
        muon = torch.optim.Muon(
            group["params"],
            lr=group["lr"],
            momentum=group["momentum"],
            weight_decay=group["weight_decay"],
            adjust_lr_fn="original",
        )
        kept = ("params", "lr", "weight_decay")
        adamw = AdamW([{key: each[key] for key in kept} for each in self.adamw.param_groups], betas=(0.9, 0.95))
        return muon, adamw

    @torch.no_grad()
    def only_forward(self) -> None:
        for batch in self.batches:
            self.forward(*batch)

    def forward_backward(self) -> None:
        self.model.zero_grad()
        for batch in self.batches:
            (self.forward(*batch) / len(self.batches)).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)


def _measure(subject: Subject, quick: bool) -> dict[str, Any]:
    rig = Rig(subject)
    peer_muon, peer_adamw = rig.library()
    parts: dict[str, Callable[[], object]] = dict(
        zip(
            PARTS,
            (rig.only_forward, rig.forward_backward, rig.muon.step, rig.adamw.step, peer_muon.step, peer_adamw.step),
            strict=True,
        )
    )
    started = time.perf_counter()
    rig.forward_backward()  # gradients for the optimizers, buffers for the allocator, graphs for the compiler
    rig.only_forward()
    first_seconds = time.perf_counter() - started
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(subject.passes):
        for part, work in parts.items():  # in turn, so that a busy machine slows all of them
            started = time.process_time()
            work()
            times[part].append(time.process_time() - started)
    seconds = {part: min(taken) for part, taken in times.items()}
    passes_per_step = subject.preset.train.batch_tokens / rig.tokens
    ours = passes_per_step * seconds["forward_backward"] + seconds["muon"] + seconds["adamw"]
    peers = passes_per_step * seconds["forward_backward"] + seconds["peer_muon"] + seconds["peer_adamw"]
    step_tokens = subject.preset.train.batch_tokens
    rates = {
        "forward": rig.tokens / seconds["forward"],
        "forward_backward": rig.tokens / seconds["forward_backward"],
        "step": step_tokens / ours,
        "library_step": step_tokens / peers,
    }
    peak = _peak_memory(subject, quick)
    return {
        "model": subject.name,
        "weights": sum(weight.numel() for weight in rig.model.parameters()),
        "compiled": subject.compiled,
        "sequence": subject.preset.train.seq_len,
        "measured_tokens": rig.tokens,
        "step_tokens": step_tokens,
        "first_pass_seconds": first_seconds,
        "cpu_seconds": seconds,
        "tokens_per_cpu_second": rates,
        "wanted_tokens_per_cpu_second": subject.wanted,
        "reached": {name: rates[name] / rate for name, rate in subject.wanted.items()},
        "muon_share_of_step": seconds["muon"] / ours,
        "library_muon_share_of_step": seconds["peer_muon"] / peers,
        "ours_to_library_muon": seconds["muon"] / seconds["peer_muon"],
        "peak_bytes": peak,
    }


def _peak_memory(subject: Subject, quick: bool) -> int | None:
    """In a process of its own: weights, gradients, buffers and activations of two training steps."""
    command = [sys.executable, __file__, "--peak", subject.name, *(["--quick"] if quick else [])]
    found = subprocess.check_output(command, text=True, env=dict(os.environ)).strip()
    return int(found) if found.isdigit() else None


def _peak(subject: Subject) -> int | None:
    before = high_water()
    rig = Rig(subject)
    for _ in range(2):
        rig.forward_backward()
        rig.muon.step()
        rig.adamw.step()
    after = high_water()
    return None if before is None or after is None else after - before


def _print(results: list[dict[str, Any]]) -> None:
    rows = []
    for each in results:
        rates, seconds = each["tokens_per_cpu_second"], each["cpu_seconds"]
        wanted = [
            f"{rate:,.0f} {name.replace('_', ' + ')}" for name, rate in each["wanted_tokens_per_cpu_second"].items()
        ]
        rows.append(
            [
                each["model"],
                *(f"{rates[name]:,.0f}" for name in ("forward", "forward_backward", "step")),
                ", ".join(wanted),
                f"{rates['library_step']:,.0f}",
                *(f"{1000 * seconds[name]:,.1f}" for name in ("muon", "peer_muon")),
                f"{100 * each['muon_share_of_step']:.1f} %",
                "" if each["peak_bytes"] is None else f"{each['peak_bytes'] / 1e6:,.0f}",
            ]
        )
    print_table(rows, COLUMNS)


if __name__ == "__main__":
    try:
        bench.main(standalone_mode=False)
    except (PgolfError, click.ClickException) as error:
        sys.exit(f"Error: {error}")
