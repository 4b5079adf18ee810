"""`pgolf wrap`: any script -> one smaller file that runs alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.options import form_option

if TYPE_CHECKING:
    from packager.script.wrapper import Form

LISTED = 10  # modules that are named; more are counted


@click.command()
@click.argument("script", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write.  [default: SCRIPT with .packed.py for .py]",
)
@form_option
@click.option("--show", multiple=True, metavar="NAME", help="A setting to show in clear, VOCAB_SIZE say; repeatable.")
@click.option("--no-minify", is_flag=True, help="Carry the sources as they are written.")
@click.option("--force", is_flag=True, help="Replace a file that is there, but never SCRIPT itself.")
@json_option
def wrap(
    script: Path, output: Path | None, form: "Form", show: tuple[str, ...], no_minify: bool, force: bool, as_json: bool
) -> None:
    """Make one smaller self-extracting file of SCRIPT and the modules beside it that it imports.

    It runs as SCRIPT does: under torchrun, spawn, torch.compile, with source lines in tracebacks.  Nothing is executed
    and nothing else is claimed: whether what it does is a submission is for `pgolf verify`.  A script that is packed
    already, by this toolkit or by others, is unpacked first.

    \b
    Example:
      pgolf wrap train_gpt_human.py -o train_gpt.py
      pgolf wrap train_gpt.py --form dense --show VOCAB_SIZE --show DATA_PATH
    """
    from codec.errors import UsageError
    from codec.storage.atomic_files import write_bytes
    from packager.requirements import requirements
    from packager.script.packed_script import packed_script, steps
    from packager.script.visible_constants import visible_constants
    from pgolf.scripts import own_file_reads, read_script

    target = output or script.with_name(f"{script.name.removesuffix('.py')}.packed.py")
    if target.exists():
        if script.exists() and target.samefile(script):
            raise UsageError("is the script itself", where=str(target), hint="choose another name with -o")
        if not force:
            raise UsageError("exists", where=str(target), hint="choose another name with -o, or pass --force")
    read = read_script(script)
    parts = read.parts
    shown = visible_constants(parts.main, str(script), show)
    raw = sum(len(text.encode()) for text in (parts.main, *parts.modules.values()))
    with progress("wrap", steps(parts) + 1) as step:
        packed = packed_script(parts, str(script), minified=not no_minify, form=form, shown=shown, progress=step)
        step(steps(parts), "the field's recipe")
        compared = _field_recipe_bytes(parts.main) if not parts.modules else None
        step(steps(parts) + 1, "")
    write_bytes(target, packed)
    found: dict[str, Any] = {
        "script": str(script),
        "output": str(target),
        "form": form,
        "unpacked_from": read.unpacked or None,
        "source_bytes": raw,
        "packed_bytes": len(packed),
        "field_recipe_bytes": compared,
        "modules": [*parts.modules],
        "shown": shown,
        "own_file_reads": own_file_reads(parts.main),
        "requirements": requirements(parts.requires, parts.optional).splitlines(),
    }
    if as_json:
        print_json(found)
    else:
        _print(found)


def _field_recipe_bytes(text: str) -> int | None:
    """What the usual recipe would take: python-minifier as it comes, xz, base 85; None where it refuses the script."""
    import base64
    import lzma

    import python_minifier

    try:
        short = python_minifier.minify(text)
    except Exception:  # whatever another program's minifier has against it is not this command's concern
        return None
    packed = lzma.compress(short.encode(), preset=9 | lzma.PRESET_EXTREME)
    return len(b'import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("")))\n' + base64.b85encode(packed))


def _print(found: dict[str, Any]) -> None:
    if found["unpacked_from"]:
        echo(f"{found['script']} was packed ({found['unpacked_from']}): unpacked first, and wrapped anew")
    rows = [("sources", found["source_bytes"]), (f"packed, {found['form']}", found["packed_bytes"])]
    if usual := found["field_recipe_bytes"]:
        rows.append(("by the field's recipe", usual))
    print_table([(name, f"{size:,}") for name, size in rows], ("form", "bytes"))
    if usual:
        echo(f"{found['packed_bytes'] / usual:.3f} of the field's recipe (python-minifier, xz, base 85)")
    if modules := found["modules"]:
        packages = sorted({name.partition(".")[0] for name in modules})
        many = f"{len(modules)} modules of {', '.join(packages)}"
        echo(f"carries {', '.join(modules) if len(modules) <= LISTED else many}")
    if lines := found["own_file_reads"]:
        lines = ", ".join(map(str, lines))
        echo(f"note: reads its own file (line {lines}); there it finds the {found['packed_bytes']:,} packed bytes")
    for line in found["requirements"]:
        echo(f"needs {line}" if not line.startswith("#") else line)
    echo(f"written to {found['output']}")
