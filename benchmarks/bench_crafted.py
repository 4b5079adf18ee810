"""Time and memory that crafted artifacts cost their reader, the limited process of verify and inspect.

python -m benchmarks.bench_crafted --output results.json

The artifacts are those of tests/codec/crafted.py.  Each is read twice: for its tensors and for its ledger.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np

from benchmarks.machine import describe
from codec.encoder import encode
from codec.errors import CodecError, InputError, PgolfError
from codec.measurement.foreign import ROOT
from codec.storage.atomic_files import write_bytes
from pgolf.console import print_table
from tests.codec.crafted import LARGE, SMALL, declared_bytes, memory_bound

VERSIONS = ("parameter-golf-kit", "numpy")
SECONDS = 2.0  # of processor time, the start of Python and numpy counted
QUESTIONS = ("state", "ledger")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One artifact, read once.  seconds: of processor time, all of the process; memory: beyond `idle`, in bytes.

    declared: bytes of the arrays it says it holds, read or not.  bound: `memory_bound` of what it may take.
    refusal: what the reader said; "" where it was read.
    """

    name: str
    question: str
    file_bytes: int
    declared: int
    seconds: float
    wall: float
    memory: int
    bound: int
    refusal: str

    @property
    def ratio(self) -> float:
        return self.memory / max(self.declared, self.file_bytes)

    @property
    def fails(self) -> bool:
        return self.seconds >= SECONDS or self.memory > self.bound


@click.command()
@click.option("--only", help="Of the artifacts whose name holds this.")
@click.option("--output", type=click.Path(), help="Write everything as JSON.")
def bench(only: str | None, output: str | None) -> None:
    """Read every crafted artifact in a process of its own; fail where one takes too long or too much."""
    trivial = encode({"a": np.zeros(1, np.uint8)}, {})
    idle = min(_run(trivial, question)[0]["peak_bytes"] for question in QUESTIONS)
    readings = [
        _reading(name, make(), question, idle)
        for name, make in {**SMALL, **LARGE}.items()
        if not only or only in name
        for question in QUESTIONS
    ]
    if not readings:
        raise InputError(f"no crafted artifact has {only!r} in its name", hint="see tests/codec/crafted.py")
    _print(readings)
    rows = [{**asdict(each), "ratio": each.ratio} for each in readings]
    report: dict[str, Any] = {"benchmark": "crafted", "machine": describe(VERSIONS), "idle_bytes": idle, "rows": rows}
    if output:
        write_bytes(output, (json.dumps(report, indent=1) + "\n").encode())
    failed = [f"{each.name} ({each.question})" for each in readings if each.fails]
    if failed:
        raise InputError(f"beyond {SECONDS:.0f} s of processor time or the bound on memory: {', '.join(failed)}")


def _reading(name: str, blob: bytes, question: str, idle: int) -> Reading:
    started = time.perf_counter()
    used, answer = _run(blob, question)
    wall, declared, refusal = time.perf_counter() - started, declared_bytes(blob), answer.get("error", "")
    return Reading(
        name=name,
        question=question,
        file_bytes=len(blob),
        declared=declared,
        seconds=used["seconds"],
        wall=wall,
        memory=max(used["peak_bytes"] - idle, 0),
        bound=memory_bound(blob, 0 if refusal else declared),
        refusal=refusal,
    )


def _run(blob: bytes, question: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what it took, what it said)"""
    command = [sys.executable, "-B", "-m", "benchmarks.processes.reading", str(ROOT), question]
    done = subprocess.run(command, input=blob, capture_output=True, cwd=ROOT, env={"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise CodecError(f"the reader ended with {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}")
    return json.loads(done.stderr), json.loads(done.stdout)


def _print(readings: list[Reading]) -> None:
    columns = ("artifact", "asked", "file", "declared", "CPU s", "wall s", "memory MB", "ratio", "of bound", "")
    print_table(
        [
            [
                each.name,
                each.question,
                f"{each.file_bytes:,}",
                f"{each.declared:.3g}",
                f"{each.seconds:.2f}",
                f"{each.wall:.2f}",
                f"{each.memory / 1e6:.1f}",
                f"{each.ratio:.2f}",
                f"{each.memory / each.bound:.2f}",
                "refused" if each.refusal else "read",
            ]
            for each in readings
        ],
        columns,
    )


if __name__ == "__main__":
    try:
        bench.main(standalone_mode=False)
    except (PgolfError, click.ClickException) as error:
        sys.exit(f"Error: {error}")
