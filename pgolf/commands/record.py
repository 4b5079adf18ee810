"""`pgolf record`: runs of several seeds -> the folder of a record, complete, or the reasons why not."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codec.errors import InputError, UsageError
from pgolf.console import echo, json_option, print_json, print_table
from pgolf.options import cap_option
from pgolf.tables import print_findings

if TYPE_CHECKING:
    from verify.finding import Finding
    from verify.record_folder.assembly import WrittenRecord

_file = click.Path(path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=_file)
@click.option("-o", "--output", required=True, type=_file, help="Folder to write; an earlier record there is replaced.")
@click.option("--script", type=_file, metavar="FILE", help="The script that ran, instead of the runs' train_gpt.py.")
@click.option(
    "--artifact",
    metavar="[SEED=]FILE",
    help="The weights to ship, instead of the runs' model.bin; SEED: whose they are.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="MEAN|RUN|RECORD",
    help="What to beat, as in `pgolf compare`; adds tests of significance.  Repeat it for several.",
)
@cap_option
@click.option("--author", help="For submission.json, as all below; default: what the runs' own says.")
@click.option("--github-id", help="Account at GitHub.")
@click.option("--name", help="Title of the record.")
@click.option("--blurb", help="What it is, in a sentence or two.")
@click.option("--date", help="Like 2026-04-18.")
@click.option("--track", help="Like 10min_16mb.")
@json_option
def record(
    runs: tuple[Path, ...],
    output: Path,
    script: Path | None,
    artifact: str | None,
    against: tuple[str, ...],
    cap: int,
    as_json: bool,
    **said: str | None,
) -> int:
    """Make the folder of a record from RUN..., the seeds of one recipe.

    RUN: the folder of a run (train_gpt.py, model.bin, train.log), one of `pgolf pack`, anybody's log, or a folder with
    logs.  The folder gets README.md, submission.json, all logs, the script, the artifact of the best run,
    requirements.txt, ledger.json and SHA256SUMS.  Every number comes from the logs and the files.

    What `pgolf compare` or `pgolf verify` fails, as far as no model is run, is refused: the findings are printed,
    nothing is written, exit code 1.

    \b
    Example:
      pgolf record run42 run314 run999 -o records/track_10min_16mb/2026-04-18_Mine --author me --date 2026-04-18
      pgolf record logs/*.log --script train_gpt.py --artifact 42=final_model.int6.ptz -o records/mine
    """
    from codec.storage.atomic_files import new_folder
    from pgolf.commands.compare import scores_to_beat
    from verify.record_folder.assembly import RecordRefused, Target, is_record, write_record
    from verify.record_folder.given_runs import read_runs

    _check_date(said["date"])
    target = Target(cap=cap, against=scores_to_beat(against) if against else None, names=_names(against))
    given = read_runs(runs, cap=cap, script=script, artifact=artifact or "", said=said)
    for note in given.notes:
        echo(f"note: {note}", err=True)
    try:
        with new_folder(output, replaces=lambda names: is_record(output)) as folder:
            written = write_record(given, folder, target, _requirements)
    except RecordRefused as refused:
        if as_json:
            print_json({"record": None, "findings": _listed(refused.findings)})
        else:
            print_findings(refused.findings, most=4, wrap=True)
            echo("")
            echo(refused)
        return refused.exit_code
    if as_json:
        print_json(_object(written, output, cap))
    else:
        _print(written, output, cap)
    return 0


def _names(against: tuple[str, ...]) -> tuple[str, ...]:
    """How a page may call them: a file by its name, wherever it lies."""
    return tuple(Path(each).resolve().name if Path(each).exists() else each for each in against)


def _check_date(date: str | None) -> None:
    from datetime import date as day

    if date is None:
        return
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
            raise ValueError
        day.fromisoformat(date)
    except ValueError:
        raise UsageError(f"--date {date} is no day of the calendar", hint="write it like 2026-04-18") from None


def _requirements(code: Mapping[str, bytes]) -> str:
    """What the code imports beyond Python and itself, each by its distribution.

    Raises: InputError for a module that no distribution has and that is not in the record: no `pip install` brings it.
    """
    from packager.requirements import is_known, requirements
    from packager.script.imports import imports
    from verify.submission.byte_count import MAIN
    from verify.submission.source_layers import parsed, read_source, unwrap

    sources = {name: read_source(data) for name, data in code.items() if name.endswith(".py")}
    layers = {f"{name}, {layer.name or 'unpacked'}": layer for name, each in sources.items() for layer in unwrap(each)}
    own = {Path(name).parts[0].removesuffix(".py") for name in code}
    own |= {layer.name.partition(".")[0] for layer in layers.values()} | sys.stdlib_module_names | {Path(MAIN).stem}
    found: dict[str, bool] = {}  # name -> whether every import of it is optional
    for where, text in {**sources, **{place: layer.text for place, layer in layers.items()}}.items():
        for each in imports(tree) if (tree := parsed(text)) else ():
            top = each.module.partition(".")[0]
            if each.level or top in own:
                continue
            if not each.optional and not is_known(top):
                raise InputError(
                    f"imports `{top}`, which is neither beside the script nor a known distribution",
                    where=f"{where}, line {each.line}",
                    hint=f"put {top}.py beside it, or install the distribution that has it",
                )
            found[top] = found.get(top, True) and each.optional
    return requirements([top for top, optional in found.items() if not optional or is_known(top)])


def _object(written: "WrittenRecord", output: Path, cap: int) -> dict[str, Any]:
    group, artifact = written.group, written.artifact
    return {
        "record": str(output),
        "seeds": [run.seed for run in group.runs],
        "mean_bpb": group.sample.mean,
        "sd_bpb": group.sample.sd,
        "mean_loss": group.losses.mean if group.losses else None,
        "sd_loss": group.losses.sd if group.losses else None,
        "code_bytes": written.code_bytes,
        "artifact": {"name": artifact.name, "seed": artifact.seed, "bytes": len(artifact.data)} if artifact else None,
        "total_bytes": written.code_bytes + len(artifact.data) if artifact else None,
        "cap_bytes": cap,
        "files": written.sums,
        "findings": _listed(written.findings),
    }


def _listed(findings: "Sequence[Finding]") -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(finding) for finding in findings]


def _print(written: "WrittenRecord", output: Path, cap: int) -> None:
    group, artifact = written.group, written.artifact
    rows = [(str(run.seed), run.label, f"{run.bpb:.{run.decimals}f}") for run in group.runs]
    rows += [("mean", "", f"{group.sample.mean:.8f}")]
    rows += [("sd", "", f"{group.sample.sd:.8f}")] if group.sample.sd is not None else []
    print_table(rows, ("seed", "score", "bpb"))
    click.echo()
    print_findings(written.findings, most=4, wrap=True)
    click.echo()
    if artifact:
        total = written.code_bytes + len(artifact.data)
        click.echo(
            f"{artifact.name} of seed {artifact.seed}: code + artifact {total:,} bytes, {cap - total:,} to the cap"
        )
    else:
        click.echo("no artifact: --artifact FILE adds it")
    click.echo(f"{output}: {len(written.sums) + 1} files")
