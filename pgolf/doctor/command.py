"""`pgolf doctor`: what this machine has, and what it lacks; with --gpu, whether its card works."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from codec.errors import EnvironmentLacks, UsageError
from pgolf.console import echo, json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from pgolf.doctor.machine import Machine
    from pgolf.doctor.needs import Found

LIMIT = 450.0  # seconds of all checks: with the start of Python and torch it stays below 8 minutes


@click.command()
@click.option("--gpu", is_flag=True, help="Run the checks of the graphics card as well; without one, their dry run.")
@click.option("--dry-run", is_flag=True, help="With --gpu: run its checks on the CPU, with models a test has.")
@click.option("--check", "names", multiple=True, metavar="NAME", help="With --gpu: this check only; repeat.")
@click.option(
    "--limit",
    type=click.FloatRange(min=1),
    default=LIMIT,
    show_default=True,
    metavar="SECONDS",
    help="With --gpu: of all checks together; what does not fit is said.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --gpu: folder for gpu.json and gpu.md; an earlier one is replaced.",
)
@json_option
def doctor(
    gpu: bool, dry_run: bool, names: tuple[str, ...], limit: float, output: Path | None, as_json: bool
) -> int | None:
    """Say what is installed, what lacks, which features that switches off, and how to get it.

    Exit code 4 when the core lacks something.

    --gpu: attention against float32, a bfloat16 step against float32, 200 steps of each H100 preset, NCCL on one rank,
    scorers, calibration and pack, a sandboxed verify, on the first NVIDIA card there is.  Each check runs in a process
    of its own, so one that fails or hangs is reported and the others go on.  Without a card, or with --dry-run, the
    same code runs on the CPU with small models: that shows that it runs, and nothing about a card.  Exit code 1 when a
    check fails.

    \b
    Example:
      pgolf doctor
      pgolf doctor --gpu -o out/gpu-check
      pgolf doctor --gpu --check attention --check step:pr162
    """
    from pgolf.doctor.machine import Machine
    from pgolf.doctor.needs import lacks_essentials, look_around

    if not gpu and (dry_run or names or output):
        raise UsageError("--dry-run, --check and --output are of --gpu", hint="add --gpu")
    machine = Machine.here(output or Path())
    found = look_around(machine)
    lacking = lacks_essentials(found)
    if gpu and not lacking:
        return _gpu(machine, dry_run or not machine.gpus, names, limit, output, as_json)
    if as_json:
        print_json({"machine": machine.to_dict(), "needs": [_row(each) for each in found], "lacks": lacking})
    else:
        _print(machine, found)
    if lacking:
        echo(str(EnvironmentLacks(f"the core lacks {', '.join(lacking)}", hint="see the table")), err=True)
        return EnvironmentLacks.exit_code
    return 0


def _row(found: "Found") -> dict[str, str | bool | None]:
    need = found.need
    return {
        "name": need.name,
        "state": found.state,
        "found": found.what,
        "essential": need.essential,
        "without": need.without,
        "how": need.how,
    }


def _print(machine: "Machine", found: "tuple[Found, ...]") -> None:
    gigabytes = "unknown" if machine.memory_bytes is None else f"{machine.memory_bytes / 1e9:.1f} GB"
    rows = [
        ("system", f"{machine.system}, {machine.architecture}"),
        ("processor", machine.processor or "unknown"),
        ("cores", str(machine.cores)),
        ("memory", gigabytes),
        ("CUDA build of torch", machine.cuda_build or "none"),
        ("user namespaces", "unknown" if machine.user_namespaces is None else f"{machine.user_namespaces:,}"),
    ]
    print_table(rows, ("machine", ""))
    click.echo()
    print_table(
        [(each.need.name, each.state, each.what or "") for each in found],
        ("what", "state", "found"),
    )
    for each in found:
        if each.what is None:
            click.echo(f"\n{each.need.name}: without it, {each.need.without}.\n    {each.need.how}")
    if machine.torch_error:
        click.echo(f"\ntorch cannot be imported: {machine.torch_error}")


def _gpu(
    machine: "Machine", dry_run: bool, names: tuple[str, ...], limit: float, output: Path | None, as_json: bool
) -> int:
    """Run the checks, write and print what they say."""
    from codec.storage.atomic_files import new_folder, write_bytes
    from pgolf.doctor.catalog import choose
    from pgolf.doctor.examination import examine
    from pgolf.doctor.page import as_json_text, gpu_page, rows
    from pgolf.doctor.plan import Plan

    checks = choose(names)
    plan = Plan.dry_run() if dry_run else Plan.of_card()
    with progress("gpu-check", len(checks)) as step:
        result = examine(machine, checks, plan, limit, step)
        step(len(checks), "")
    if output:
        with new_folder(output, replaces=lambda names: names <= {"gpu.json", "gpu.md"}) as folder:
            write_bytes(folder / "gpu.json", as_json_text(result).encode())
            write_bytes(folder / "gpu.md", gpu_page(result).encode())
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(result.headline)
        click.echo()
        print_table(rows(result), ("check", "state", "seconds", "what was measured"))
        if output:
            click.echo(f"{output}: gpu.json, gpu.md")
    return 0 if result.holds else 1
