"""Bytes of a packed script: as it is, by the recipe of the challenge's records, and in the toolkit's two forms.

The scripts are flat files of the toolkit's own modules, shaped like the records' (tests/packager/field_scripts.py),
with the `vars(x)` that all records from April on have and which keeps the recipe from shortening names, and without.
Every size is that of a whole file that runs.  Of one version of everything the bytes are the same on any machine.

python -m benchmarks.bench_wrap --output results.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.machine import describe
from codec.errors import PgolfError
from codec.storage.atomic_files import write_bytes
from packager.script.bundle import bundle
from packager.script.packed_script import packed_script
from pgolf.console import print_table
from tests.packager.field_scripts import field_recipe, field_script

SIZES = (50_000, 70_000, 105_000, 150_000)
PACKAGES = ("python-minifier",)


@click.command()
@click.option("--size", "sizes", type=int, multiple=True, help="Bytes of a script; repeatable.  [default: four sizes]")
@click.option("--script", "scripts", type=click.Path(path_type=Path), multiple=True, help="Measure this one as well.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def bench(sizes: tuple[int, ...], scripts: tuple[Path, ...], output: Path | None) -> None:
    """Print a table and write the JSON."""
    results = []
    for size in sizes or SIZES:
        text = field_script(size)
        results.append(_measured(f"{size // 1000} kB", text))
        plain = text.replace("vars(settings)", "settings.__dict__")
        results.append(_measured(f"{size // 1000} kB, without vars(x)", plain))
    results += [_measured(path.name, path.read_text(), path.parent) for path in scripts]
    rows = [
        (each["script"], *(f"{each[key]:,}" for key in ("raw", "field_recipe", "safe", "dense")), *_ratios(each))
        for each in results
    ]
    print_table(rows, ("script", "raw", "field's recipe", "safe", "dense", "safe / field", "dense / field"))
    if output is not None:
        report = {"machine": describe(PACKAGES), "results": results}
        write_bytes(output, (json.dumps(report, indent=1) + "\n").encode())


def _measured(name: str, text: str, beside: Path | None = None) -> dict[str, Any]:
    parts = bundle(text, name, beside=beside)
    return {
        "script": name,
        "raw": len(text.encode()),
        "field_recipe": len(field_recipe(text)),
        "safe": len(packed_script(parts, name)),
        "dense": len(packed_script(parts, name, form="dense")),
    }


def _ratios(result: dict[str, Any]) -> list[str]:
    return [f"{result[form] / result['field_recipe']:.3f}" for form in ("safe", "dense")]


if __name__ == "__main__":
    try:
        bench.main(standalone_mode=False)
    except (PgolfError, click.ClickException) as error:
        sys.exit(f"Error: {error}")
