"""What the proof of score.prefix costs, and how often it sees a leak of known size.

python -m benchmarks.bench_proof --output results.json
python -m benchmarks.bench_proof --score own --output own.json
python -m benchmarks.bench_proof --runs 0 --submission out/demo/submission --data out/demo/data --output cost.json
"""

import json
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.compared.leaks import BATCH, LENGTH, PROBED, STRIDE, TARGETS, Leak, Look, found_in, least_found, looked
from benchmarks.compared.own_leaks import looked_own
from benchmarks.machine import describe
from codec.errors import InputError, PgolfError
from codec.storage.atomic_files import write_bytes
from pgolf.console import print_table
from verify.foresight.power import SHARES, WORTH

VERSIONS = ("parameter-golf-kit", "numpy", "torch")
NOISES = (1e-4, 1e-3)  # nats, of simulated kernels
NOISY_SHARE = 0.5  # of the forwards: 192 cuts
HONEST = 200  # runs of honest noisy models
LOOKS = {"sliding": looked, "own": looked_own}


@click.command()
@click.option("--runs", default=200, show_default=True, help="Of each leak; 0: none of this.")
@click.option("--score", type=click.Choice(list(LOOKS)), default="sliding", show_default=True, help="Whose leaks.")
@click.option("--rounds", default=5, show_default=True, help="Of verify with and without proof, in turn.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of verify; default: torch's choice.")
@click.option("--submission", type=click.Path(path_type=Path), help="Measure the cost on this one, with --data.")
@click.option("--data", type=click.Path(path_type=Path), help="Its data.")
@click.option("--output", type=click.Path(path_type=Path), help="Write everything as JSON.")
def bench(
    runs: int,
    score: str,
    rounds: int,
    threads: int | None,
    submission: Path | None,
    data: Path | None,
    output: Path | None,
) -> None:
    """Count how often leaks of a toy are seen; time verify with the default proof and with none."""
    report: dict[str, Any] = {"benchmark": "proof", "machine": describe(VERSIONS)}
    if runs:
        report["detection"] = _detection(runs, score)
    if submission and data:
        report["cost"] = _cost(submission, data, rounds, threads)
    if output:
        write_bytes(output, (json.dumps(report, indent=1) + "\n").encode())


def _detection(runs: int, score: str = "sliding") -> dict[str, Any]:
    """A leak of WORTH nats per token, in shares of positions and of requests; and below noise."""
    row = partial(_row, LOOKS[score])
    still = [row(Leak(share=share, by_request=by_request), runs) for by_request in (False, True) for share in SHARES]
    noisy = [row(Leak(share=1.0, noise=noise), runs, NOISY_SHARE, exact=False) for noise in NOISES]
    honest = [row(Leak(share=0.0, noise=noise), HONEST, NOISY_SHARE, exact=False) for noise in NOISES]
    text = {"targets": TARGETS, "length": LENGTH, "stride": STRIDE, "batch": BATCH, "worth": WORTH}
    columns = ("leak", "share", "noise", "found", "of", "stated")
    rows = [*still, *noisy, *honest]
    print_table(
        [(*(str(row[name]) for name in columns[:-1]), f"{row['stated']:.3f}") for row in rows],
        columns,
    )
    missed = [row for row in (*still, *noisy) if row["found"] < least_found(runs, row["stated"])]
    if missed:
        raise InputError(f"found {missed[0]['found']} of {runs}, stated {missed[0]['stated']:.3f}: {missed[0]}")
    return {"score": score, "text": text, "still": still, "noisy": noisy, "honest": honest}


def _row(look: Look, leak: Leak, runs: int, share: float = PROBED, *, exact: bool = True) -> dict[str, Any]:
    found, stated = found_in(runs, leak, look, share=share, exact=exact)
    return {
        "leak": "requests" if leak.by_request else "positions",
        "share": leak.share,
        "nats": leak.nats,
        "noise": leak.noise,
        "proof": share,
        "found": found,
        "of": runs,
        "stated": stated,
    }


def _cost(submission: Path, data: Path, rounds: int, threads: int | None) -> dict[str, Any]:
    """Seconds of the whole command, on the wall and of processors, with the default proof and with none."""
    seconds: dict[str, list[float]] = {"default": [], "none": []}
    cpu: dict[str, list[float]] = {"default": [], "none": []}
    command = [sys.executable, "-m", "pgolf", "verify", str(submission), "--data", str(data), "--json"]
    command += ["--threads", str(threads)] if threads else []
    coverage: dict[str, Any] = {}
    for number in range(rounds):
        for name in list(seconds)[:: 1 if number % 2 else -1]:
            started, before = time.perf_counter(), _processors()
            done = subprocess.run(
                command + (["--proof", "0"] if name == "none" else []), capture_output=True, text=True
            )
            seconds[name].append(time.perf_counter() - started)
            cpu[name].append(_processors() - before)
            if not done.stdout:
                raise InputError(f"verify says {done.stderr[-500:]}", where=str(submission))
            found = json.loads(done.stdout)
            if name == "default":
                rule = next(finding for finding in found["findings"] if finding["rule"] == "score.prefix")
                coverage = rule["evidence"]["coverage"]
    best = {name: min(each) for name, each in seconds.items()}
    rows = [(name, f"{best[name]:.2f}", f"{median(each):.2f}") for name, each in seconds.items()]
    print_table(rows, ("proof", "best", "median"))
    return {
        "submission": submission.name,
        "targets": found["targets"],
        "threads": threads,
        "seconds": seconds,
        "processor_seconds": cpu,
        "ratio_best": best["default"] / best["none"],
        "ratio_median": median(seconds["default"]) / median(seconds["none"]),
        "ratio_processors": median(cpu["default"]) / median(cpu["none"]),
        "coverage": coverage,
    }


def _processors() -> float:
    """Seconds that processors spent on processes of ours that are over."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    try:
        bench.main(standalone_mode=False)
    except (PgolfError, click.ClickException) as error:
        sys.exit(f"Error: {error}")
