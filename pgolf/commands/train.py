"""`pgolf train`: token shards -> checkpoint, log and resumable state."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from codec.progress import silent_bar
from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.data_origin import check_origin
from pgolf.evaluation import TrainingBar, fit_vocabulary, sliding_evaluation
from pgolf.options import device_option, seed_option, settings_option, steps_option, threads_option

if TYPE_CHECKING:
    from trainer.run.loop import TrainResult
    from verify.scoring.heldout import HeldOut


@click.command()
@click.argument("preset")
@click.option(
    "--data", "data_dir", required=True, metavar="DIR", help="Folder with *_train_*.bin, *_val_*.bin and one *.model."
)
@click.option("--output", "-o", required=True, metavar="RUN", help="Folder for checkpoint, log and state.")
@seed_option
@steps_option
@threads_option
@device_option
@click.option(
    "--compile/--no-compile", default=None, help="Compile the model with torch.compile.  [default: the preset's choice]"
)
@settings_option
@click.option("--resume", is_flag=True, help="Go on from the state in RUN, if there is one.")
@click.option("--tokenizer", metavar="FILE", help="SentencePiece model, instead of the data folder's.")
@click.option("--val", metavar="FILE", help="Validation shard, instead of the data folder's.")
@click.option(
    "--limit-tokens",
    type=click.IntRange(min=1),
    default=65_536,
    show_default=True,
    metavar="N",
    help="Validate on the first N targets only.",
)
@click.option(
    "--tracker",
    "trackers",
    type=click.Choice(["tensorboard", "wandb", "trackio"]),
    multiple=True,
    help="Send losses there too; may be repeated.  metrics.jsonl is always written.",
)
@json_option
def train(
    preset: str,
    data_dir: str,
    output: str,
    seed: int,
    steps: int | None,
    threads: int | None,
    device: str,
    compile: bool | None,
    settings: tuple[str, ...],
    resume: bool,
    tokenizer: str | None,
    val: str | None,
    limit_tokens: int,
    trackers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train PRESET, a name or a TOML file, on token shards.

    On a CPU: tiny (seconds), cpu-demo (minutes), cpu-bench (half an hour).  On 8 x H100: baseline, pr162, pr339,
    pr1176, pr1716, and pr1716-bigram, whose bigram table is trained.  A file of your own states what differs from the
    preset that it extends; trainer/presets has examples.

    RUN gets checkpoint.safetensors, train.log, metrics.jsonl and state.safetensors. A run that was stopped, by Ctrl-C
    or kill, goes on with --resume and ends with the same weights as one that was not. Under torchrun every process
    takes an equal part of each step; any number that divides its sequences gives the same run.

    \b
    Example:
      pgolf train cpu-demo --data data -o run
      pgolf train cpu-demo --data data -o run --resume
      pgolf train mine.toml --data data -o run
      pgolf train pr339 --data data -o run --set qat_below=0.1 --set qat_recipe=pr339
      torchrun --nproc_per_node=8 -m pgolf train pr1716 --data data -o run
    """
    from codec.quantization.recipe_files import load_recipe
    from codec.storage.token_shards import find_shards, find_tokenizer, refuse_copies
    from trainer.compute.ranks import Ranks
    from trainer.presets.catalog import find_preset
    from trainer.presets.overrides import apply_overrides
    from trainer.run.launched import told_once
    from trainer.run.loop import train as run_training
    from verify.scoring.heldout import HeldOut

    ranks = Ranks.launched()
    first = ranks.first
    with told_once(ranks, f"{output}: stopped; add --resume to the same command to go on"):
        chosen = apply_overrides(find_preset(preset), settings)
        if compile is not None:
            chosen = replace(chosen, train=replace(chosen.train, compile=compile))
        tokenizer_file = Path(tokenizer) if tokenizer else find_tokenizer(data_dir)
        chosen = fit_vocabulary(chosen, tokenizer_file)
        shards = [Path(val)] if val else find_shards(data_dir, "val")
        heldout = HeldOut.read(shards, tokenizer_file, limit_tokens)
        used = [*find_shards(data_dir, "train"), *shards]
        check_origin(used, heldout.tokenizer_sha256)
        refuse_copies(used)
        total = steps or chosen.train.steps
        with progress(f"train {chosen.name}", total, left=False) if first else silent_bar("", total) as report:
            bar = TrainingBar(report, heldout.targets)
            result = run_training(
                chosen,
                data_dir,
                output,
                evaluate=sliding_evaluation(heldout, chosen.model.seq_len, progress=bar.validating),
                seed=seed,
                steps=steps,
                threads=threads,
                device=device,
                resume=resume,
                tokenizer=tokenizer_file,
                trackers=trackers,
                progress=bar.step,
                find_recipe=load_recipe,
            )
    if not first:
        return
    if heldout.unproven:
        echo(f"note: bpb is only as right as its bytes: {heldout.unproven}", err=True)
    if as_json:
        print_json({**asdict(result), "checkpoint": str(result.checkpoint)})
    else:
        _print(result, heldout)


def _print(result: "TrainResult", heldout: "HeldOut") -> None:
    print_table(
        [
            ("steps", f"{result.steps:,}"),
            ("tokens", f"{result.tokens:,}"),
            ("train seconds", f"{result.seconds:.1f}"),
            ("tokens per second", f"{result.tokens / result.seconds:,.0f}"),
            ("val loss, nats per token", f"{result.val_loss:.4f}"),
            ("val bpb", f"{result.val_bpb:.4f}"),
            ("sha256 of the weights", result.weights_sha256[:16]),
            ("targets scored", f"{heldout.targets:,} of {heldout.shard_targets:,}"),
        ]
    )
    click.echo(result.checkpoint)
