"""Sliding evaluation beside the loop of the published scripts: same windows, same batch, same numbers, one process.

python -m benchmarks.bench_scorers --output results.json
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.machine import describe
from codec.errors import InputError, PgolfError
from codec.storage.atomic_files import write_bytes
from pgolf.console import print_table
from trainer.model.gpt import GPT, GPTConfig
from trainer.presets.catalog import PRESETS
from verify.scoring.score import total
from verify.scoring.sliding import Sliding
from verify.scoring.windows import plan

VERSIONS = ("parameter-golf-kit", "numpy", "torch")
COLUMNS = ("scorer", "best seconds", "targets per second", "loop / it, best", "median", "bpb")
SLIDING, LOOP = "sliding", "plain loop"
BATCH = 32  # windows at a time in the published scripts


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with random weights and how much text it scores."""

    name: str
    model: GPTConfig
    length: int
    stride: int
    targets: int


DEMO = PRESETS["cpu-demo"].model
CASES = (
    Case(name="cpu-demo", model=replace(DEMO, vocab_size=1024), length=256, stride=64, targets=8_192),
    Case(
        name="cpu-demo, vocabulary 8192",
        model=replace(DEMO, vocab_size=8192, seq_len=1024),
        length=1024,
        stride=64,
        targets=3_072,
    ),
)


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Each scorer runs once per round, in turn.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--quick", is_flag=True, help="The first model on little text, one round.")
@click.option("--output", type=click.Path(path_type=Path), help="Write everything as JSON.")
def bench(rounds: int, threads: int, quick: bool, output: Path | None) -> None:
    """Race exact sliding evaluation against a plain loop over window batches."""
    torch.set_num_threads(threads)
    results = [_race(replace(CASES[0], targets=1_000), 1)] if quick else [_race(case, rounds) for case in CASES]
    report = {
        "benchmark": "scorers",
        "quick": quick,
        "threads": threads,
        "batch": BATCH,
        "machine": describe(VERSIONS),
        "results": results,
    }
    if output:
        write_bytes(output, (json.dumps(report, indent=1) + "\n").encode())


def arithmetic(targets: int, length: int, stride: int) -> dict[str, int | float]:
    """What an exact plan costs: windows, tokens read, and how many of those are read again for context."""
    windows = plan(targets, length, stride)
    read = sum(window.stop - window.start for window in windows)
    return {
        "targets": targets,
        "length": length,
        "stride": stride,
        "windows": len(windows),
        "tokens_read": read,
        "tokens_recomputed": read - targets,
        "reads_per_target": read / targets,
    }


def plain_loop(
    logits: Callable[[Tensor], Tensor], tokens: np.ndarray, token_bytes: np.ndarray, length: int, stride: int
) -> tuple[float, int]:
    """(nats, bytes) as the published scripts add them up.

    Each window is copied into a padded batch, logits and losses are taken at all its positions, and each window's
    scored part is then summed by itself.
    """
    ids, sizes = torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(token_bytes)
    windows = plan(len(ids) - 1, length, stride)
    nats, size = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for first in range(0, len(windows), BATCH):
            group = windows[first : first + BATCH]
            inputs, targets = torch.zeros(2, len(group), length, dtype=torch.int64)
            for row, window in enumerate(group):
                count = window.stop - window.start
                inputs[row, :count] = ids[window.start : window.stop]
                targets[row, :count] = ids[window.start + 1 : window.stop + 1]
            output = logits(inputs)
            losses = cross_entropy(output.flatten(0, 1).float(), targets.flatten(), reduction="none")
            losses = losses.view(len(group), length)
            for row, window in enumerate(group):
                nats += losses[row, window.first_scored - window.start : window.stop - window.start].double().sum()
                size += sizes[window.first_scored : window.stop].double().sum()
    return float(nats), int(size)


class LogitsOnly:
    """A model without `.hidden` and `.head`: what is gained by windows of equal shape and nothing else."""

    def __init__(self, model: GPT) -> None:
        self.logits = model.logits


def _race(case: Case, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model, rng = GPT(case.model).eval(), np.random.default_rng(0)
    tokens = rng.integers(0, case.model.vocab_size, case.targets + 1).astype(np.uint16)
    token_bytes = rng.integers(1, 8, case.targets)
    settings = {"vocab_size": case.model.vocab_size, "length": case.length, "stride": case.stride}

    def sliding(subject: Any) -> tuple[float, int]:
        score = total(Sliding(model=subject, **settings), tokens, token_bytes, batch=BATCH)
        return score.nats, score.bytes

    racers = {
        SLIDING: lambda: sliding(model),
        "sliding, .logits only": lambda: sliding(LogitsOnly(model)),
        LOOP: lambda: plain_loop(model.logits, tokens, token_bytes, case.length, case.stride),
    }
    seconds: dict[str, list[float]] = {name: [] for name in racers}
    numbers = {}
    for number in range(rounds):
        for name in list(racers)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            numbers[name] = racers[name]()
            seconds[name].append(time.perf_counter() - started)
    _check_equal(case.name, numbers)
    result = {
        "model": case.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **arithmetic(case.targets, case.length, case.stride),
        "nats": {name: nats for name, (nats, _) in numbers.items()},
        "seconds": seconds,
        "loop_to_it_best": {name: min(seconds[LOOP]) / min(each) for name, each in seconds.items()},
        "loop_to_it_median": {name: median(seconds[LOOP]) / median(each) for name, each in seconds.items()},
    }
    _print(result, {name: nats / math.log(2) / size for name, (nats, size) in numbers.items()})
    return result


def _check_equal(name: str, numbers: dict[str, tuple[float, int]]) -> None:
    nats, size = numbers[LOOP]
    for racer, (other, other_size) in numbers.items():
        if size != other_size or not math.isclose(nats, other, rel_tol=1e-6):
            raise InputError(f"{racer}: {other} nats and {other_size} bytes, the loop {nats} and {size}", where=name)


def _print(result: dict[str, Any], bpb: dict[str, float]) -> None:
    best = {name: min(each) for name, each in result["seconds"].items()}
    click.echo(
        f"\n{result['model']}: {result['parameters']:,} parameters; {result['targets']:,} targets in "
        f"{result['windows']:,} windows of {result['length']}, stride {result['stride']}: {result['tokens_read']:,} "
        f"tokens read, {result['tokens_recomputed']:,} of them again ({result['reads_per_target']:.2f} per target)"
    )
    rows = [
        (
            name,
            f"{seconds:.2f}",
            f"{result['targets'] / seconds:,.0f}",
            f"{result['loop_to_it_best'][name]:.2f}",
            f"{result['loop_to_it_median'][name]:.2f}",
            f"{bpb[name]:.6f}",
        )
        for name, seconds in best.items()
    ]
    print_table(rows, COLUMNS)


if __name__ == "__main__":
    try:
        bench.main(standalone_mode=False)
    except (PgolfError, click.ClickException) as error:
        sys.exit(f"Error: {error}")
