"""Root of the command line: lazily loaded subcommands, errors as one sentence, exit codes.

Exit codes: 0 fine; 1 verdict failed or over the cap; 2 usage; 3 unreadable or corrupt input;
4 something the environment lacks; 130 interrupted.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import click

from pgolf.plugins import load_plugin
from pgolf.signals import command_signals

# name -> (module:function, one line of help): the help page must not import torch or numpy.
COMMANDS = {
    "audit": ("pgolf.commands.audit:audit", "What a scorer sees that it must not: run it over changed text."),
    "calibrate": ("pgolf.commands.calibrate:calibrate", "What a checkpoint's layers see, for recipes with GPTQ."),
    "compare": ("pgolf.commands.compare:compare", "Means, spread and significance of runs, from their logs."),
    "data": ("pgolf.commands.data:data", "Text -> tokenizer and token shards."),
    "decode": ("pgolf.commands.model_file:decode", "Encoded model, artifact or submission -> checkpoint."),
    "demo": ("pgolf.commands.demo:demo", "Text -> train -> pack -> verify, in minutes on a laptop CPU."),
    "doctor": ("pgolf.doctor.command:doctor", "What this machine has and lacks; --gpu: whether its card works."),
    "encode": ("pgolf.commands.model_file:encode", "Any safetensors checkpoint -> one small file."),
    "inspect": ("pgolf.commands.inspect:inspect", "What an artifact, wrapper or submission holds, byte by byte."),
    "measure": ("pgolf.commands.measure:measure", "Bits per weight of a checkpoint under one or more recipes."),
    "new": ("pgolf.commands.new:new", "A submission to begin with: trains, packs and scores itself."),
    "pack": ("pgolf.commands.pack:pack", "Checkpoint -> submission folder under the byte cap."),
    "record": ("pgolf.commands.record:record", "Runs of several seeds -> the folder of a record."),
    "report": ("pgolf.commands.report:report", "One page about a checkpoint, an artifact, a submission or runs."),
    "train": ("pgolf.commands.train:train", "Train a preset on token shards."),
    "unpack": ("pgolf.commands.model_file:decode", "Another name of `decode`."),
    "verify": ("pgolf.commands.verify:verify", "Reload a submission, count its bytes, score it again."),
    "wrap": ("pgolf.commands.wrap:wrap", "Any script -> one smaller file that runs alone."),
}


class LazyGroup(click.Group):
    """Lists COMMANDS without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, function = COMMANDS[name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="parameter-golf-kit", prog_name="pgolf")
@click.option(
    "--plugin",
    "plugins",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE.py",
    help="Run this Python file first, with your rights: what it registers (presets, quantizers, rules...) is known to "
    "the command; repeat.",
)
def root(plugins: tuple[Path, ...]) -> None:
    """Put a language model into 16,000,000 bytes: train, quantize, pack, verify.

    \b
    Example:
      pgolf demo -o out/demo
    """
    for plugin in plugins:
        load_plugin(plugin)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    # libgomp reads this when torch loads it.  Threads that wait for a descheduled one spin by default: with one of two
    # cores busy, training took 7 times as long as idle.  3,000 spins, then sleep: 2.6 times, and 5 % slower idle.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    with command_signals():
        return _run(arguments, as_json)


def _run(arguments: list[str], as_json: bool) -> int:
    """The exit code of a command; its error is said while it is handled, so that no signal comes between."""
    try:
        result = _without_system_errors(arguments)
    except click.ClickException as error:
        from trainer.run.launched import let_the_first_speak

        let_the_first_speak()
        message = error.format_message().removesuffix(".")
        context = getattr(error, "ctx", None)
        hint = f"see `{context.command_path} --help`" if context else ""
        if isinstance(error, click.NoSuchOption) and error.option_name == "--plugin":
            message = error.message.removesuffix(".")  # without click's guess at another option
            hint = "it stands before the command: pgolf --plugin FILE.py COMMAND"
        return _fail(as_json, "UsageError", message, "", hint, 2, f"{message}; {hint}" if hint else message)
    except (KeyboardInterrupt, click.Abort):
        return _fail(as_json, "Interrupted", "interrupted", "", "", 130, "interrupted")
    except Exception as error:
        from codec.errors import PgolfError  # here, because it loads numpy, which `--help` should not wait for

        if not isinstance(error, PgolfError):
            raise
        return _fail(as_json, type(error).__name__, error.message, error.where, error.hint, error.exit_code, str(error))
    return result if isinstance(result, int) else 0


def _without_system_errors(arguments: list[str]) -> object:
    """What the command returns; what the operating system refuses it becomes a PgolfError."""
    try:
        return root.main(arguments, prog_name="pgolf", standalone_mode=False)
    except BrokenPipeError:
        return 0
    except OSError as error:
        from codec.storage.atomic_files import refusal

        raise refusal(error) from error


def _fail(as_json: bool, kind: str, message: str, where: str, hint: str, exit_code: int, sentence: str) -> int:
    if as_json:
        error = {"kind": kind, "message": message, "where": where, "hint": hint}
        click.echo(json.dumps({"error": error, "exit_code": exit_code}))
    click.echo(f"Error: {sentence}", err=True)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
