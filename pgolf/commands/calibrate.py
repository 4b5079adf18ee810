"""`pgolf calibrate`: checkpoint and training text -> Hessians and row sensitivities, for recipes with GPTQ."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codec.errors import InputError, UsageError
from codec.storage.atomic_files import within
from pgolf.console import echo, json_option, print_json, print_table, progress
from pgolf.data_origin import check_origin
from pgolf.options import config_option, device_option, seed_option, switches_option

if TYPE_CHECKING:
    from torch import Tensor

    from packager.importers.imported import Imported
    from trainer.calibration import Calibration
    from trainer.model.gpt import GPT

DEFAULT_NAME = "calibration.safetensors"


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", "data_dir", metavar="DIR", help="Folder with *_train_*.bin; needed unless the model samples.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"[default: {DEFAULT_NAME} beside the checkpoint]",
)
@click.option(
    "--source",
    type=click.Choice(["data", "self"]),
    default="data",
    show_default=True,
    help="Training shards, or what the model writes itself (slow: every token costs a pass).",
)
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many.  [default: 64 tokens per input of the widest layer]",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Sequences per pass.  [default: 2,048 tokens, on a GPU 16,384]",
)
@seed_option
@device_option
@config_option
@click.option("--preset", help="The model's switches are this preset's, where the checkpoint does not state them.")
@switches_option
@json_option
def calibrate(
    checkpoint: Path,
    data_dir: str | None,
    output: Path | None,
    source: str,
    sequences: int | None,
    batch: int | None,
    seed: int,
    device: str,
    config: Path | None,
    preset: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """What the tensors of CHECKPOINT matter to the loss, for `pack`: second moments of every layer's inputs (Hessians)
    and of the gradients of its outputs; of lookup tables and small parameters those of their gradients.

    Validation text is never read. The time this takes counts as training time: it is printed beside the checkpoint's
    own, and a line goes into train.log where one lies beside the checkpoint.

    \b
    Example:
      pgolf calibrate run/checkpoint.safetensors --data data
      pgolf measure run/checkpoint.safetensors --recipe pr1716 --hessians run/calibration.safetensors
    """
    if source == "data" and data_dir is None:
        raise UsageError("--data DIR is missing", hint="or let the model write its own text: --source self")
    from pgolf.checkpoints import ModelSource, read_model

    imported = read_model(checkpoint, ModelSource(config=config, preset=preset, settings=settings))
    for note in imported.notes:
        echo(f"note: {note}", err=True)
    output = output or checkpoint.parent / DEFAULT_NAME
    found, seconds = write_calibration(
        checkpoint, imported, output, data_dir if source == "data" else None, sequences, batch, seed, device
    )
    trained = imported.metadata.get("train_seconds")
    _print(output, found, source, seconds, trained if isinstance(trained, int | float) else None, as_json)


def calibration_beside(checkpoint: Path) -> Path | None:
    """The file that this command leaves beside a checkpoint, if it is there."""
    path = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / DEFAULT_NAME
    if not path.is_file():
        return None
    echo(f"note: calibrated by {path}", err=True)
    return path


def write_calibration(
    checkpoint: Path,
    imported: "Imported",
    output: Path,
    data_dir: str | None,
    sequences: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> "tuple[Calibration, float]":
    """(what was found, seconds).  imported: of the checkpoint.  data_dir: None lets the model write its own text."""
    from codec.storage.atomic_files import check_writable
    from codec.storage.calibration_file import CHECKPOINT, sha256
    from trainer.calibration import calibrate as run_calibration
    from trainer.calibration import default_sequences, own_samples, sequences_per_pass

    check_writable(output)
    model = _model(imported, checkpoint, device)
    sequences = sequences or default_sequences(model.config)
    batch = min(batch or sequences_per_pass(model.config, model.tok_emb.weight.device), sequences)
    metadata = {
        "source": "self" if data_dir is None else "data",
        "batch": batch,
        "seed": seed,
        CHECKPOINT: sha256(checkpoint),
    }
    started = time.perf_counter()
    with progress("calibrate", sequences) as report:
        if data_dir is not None:
            batches = _windows(model, imported.metadata, data_dir, sequences, batch, seed)
        else:
            batches = own_samples(model, sequences=sequences, batch=batch, seed=seed, progress=report)
        with within(checkpoint):
            found = run_calibration(model, batches, seed=seed, progress=report)
    seconds = time.perf_counter() - started
    found.write(output, metadata)
    _log(checkpoint.parent, seconds)
    return found, seconds


def _model(imported: "Imported", checkpoint: Path, device: str) -> "GPT":
    from trainer.calibration import calibration_model
    from trainer.compute.device import find_device
    from trainer.model.config import GPTConfig
    from trainer.presets.published_layouts import check_shapes

    with within(checkpoint):
        config = GPTConfig.from_dict(imported.metadata["config"])
        check_shapes(config, {name: array.shape for name, array in imported.tensors.items()})
    return calibration_model(config, imported.tensors, find_device(device))


def _windows(
    model: "GPT", notes: dict[str, Any], data_dir: str, sequences: int, batch: int, seed: int
) -> "Iterator[Tensor]":
    """Training windows in random order, ids int64 (at most `batch`, seq_len)."""
    from codec.storage.calibration_file import sha256
    from codec.storage.token_shards import find_shards
    from trainer.calibration import training_windows
    from trainer.data.loader import Loader

    config, trained_on = model.config, notes.get("tokenizer_sha256")
    tokenizers = [sha256(path) for path in sorted(Path(data_dir).glob("*.model"))]
    if isinstance(trained_on, str) and tokenizers and trained_on not in tokenizers:
        raise InputError(
            f"the tokenizer here is not the one the checkpoint was trained with (sha256 {trained_on:.12})",
            where=data_dir,
            hint="calibrate on the data it was trained on",
        )
    if isinstance(trained_on, str):
        check_origin(find_shards(data_dir, "train"), trained_on)
    loader = Loader(data_dir, seq_len=config.seq_len, sequences=batch, vocab_size=config.vocab_size, seed=seed)
    if sequences > loader.windows:
        click.echo(f"note: the shards hold {loader.windows} windows, some are used more than once", err=True)
    return training_windows(loader, sequences)


def _log(run: Path, seconds: float) -> None:
    """One line, instead of that of an earlier calibration, whose file this one's replaces."""
    from codec.storage.atomic_files import write_bytes
    from trainer.run.run_folder import LOG
    from trainer.run.text_log import CALIBRATE, PHASES

    path = run / LOG
    if path.is_file():
        start = f"{PHASES} {CALIBRATE}:".encode()
        kept = [line for line in path.read_bytes().splitlines(keepends=True) if not line.startswith(start)]
        write_bytes(path, b"".join(kept) + start + f"{seconds * 1000:.0f}ms\n".encode())


def _print(
    output: Path, found: "Calibration", source: str, seconds: float, trained: float | None, as_json: bool
) -> None:
    from codec.budget import PARAMETER_GOLF

    total = None if trained is None else trained + seconds
    if as_json:
        print_json(
            {
                "calibration": str(output),
                "source": source,
                "sequences": found.sequences,
                "tokens": found.tokens,
                "layers": len(found.hessians),
                "seconds": seconds,
                "train_seconds": trained,
                "total_seconds": total,
                "budget_seconds": PARAMETER_GOLF.train_seconds,
            }
        )
        return
    print_table(
        [
            ("layers", len(found.hessians)),
            ("sequences", f"{found.sequences:,}"),
            ("tokens", f"{found.tokens:,}"),
            ("calibration seconds", f"{seconds:.1f}"),
            ("training seconds", "unknown" if trained is None else f"{trained:.1f}"),
            (
                "both, of the budget",
                f"{'unknown' if total is None else f'{total:.1f}'} of {PARAMETER_GOLF.train_seconds}",
            ),
        ]
    )
    click.echo(output)
