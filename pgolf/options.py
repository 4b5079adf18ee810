"""Options that several commands share: the byte cap, how a run trains, and how ttt and slot adapt a model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from codec.budget import PARAMETER_GOLF
from codec.errors import UsageError

if TYPE_CHECKING:
    from verify.scoring.adaptation import Adaptation

cap_option = click.option(
    "--cap",
    type=click.IntRange(min=1),
    default=PARAMETER_GOLF.total_bytes,
    show_default=True,
    help="Bytes that code and weights may have together.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Of all that is drawn: starting weights, order of the data, samples.",
)
settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the preset: any field of its GPTConfig or TrainConfig; may be repeated.",
)
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The model of a checkpoint that does not state it: TOML with a table [model], or a JSON object.",
)
switches_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="One switch of the model of a checkpoint that does not state it: any field of GPTConfig; repeat.",
)
steps_option = click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Train N steps, not the preset's.")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: torch's choice]"
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
form_option = click.option(
    "--form",
    type=click.Choice(["safe", "dense"]),
    default="safe",
    show_default=True,
    help="Of the packed script.  safe: printable text.  dense: 8 % smaller, holds control characters, so git needs "
    "`-text` for it.",
)
calibration_option = click.option(
    "--calibration",
    "--hessians",
    "calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Of `pgolf calibrate` or `trainer.Hooks`, for recipe best and those with GPTQ.  [default without --recipe: "
    "calibration.safetensors beside CHECKPOINT]",
)
_SIZE_OPTIONS = (
    click.option(
        "--bytes",
        "artifact_bytes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Choose the steps so that the artifact alone has N bytes.",
    ),
    click.option(
        "--bits-per-weight",
        type=click.FloatRange(min=0, min_open=True),
        metavar="X",
        help="Choose the steps so that the artifact has X bits for each weight.",
    ),
)
_FIT_OPTIONS = (
    click.option("--fit", is_flag=True, help="Choose the steps of the recipe's matrices so that the cap is just met."),
    click.option(
        "--margin",
        type=click.IntRange(min=0),
        metavar="BYTES",
        help="Leave so many below the cap; with --fit.  [default: 0]",
    ),
)
VOCAB_SIZE = 1024  # pieces of a tokenizer that is trained without a wish
SCORES = click.Choice(["sliding", "own", "ttt", "slot"])
Command = TypeVar("Command", bound=Callable[..., Any])
_positive = click.IntRange(min=1)
_rate = click.FloatRange(min=0, min_open=True)
_OPTIONS = (
    click.option(
        "--ttt-chunk",
        type=_positive,
        metavar="TARGETS",
        help="Scored, then trained on.  [default: 32768, or a 16th of a shorter text in whole windows]",
    ),
    click.option("--ttt-epochs", type=_positive, default=3, show_default=True, help="Passes over a chunk."),
    click.option("--ttt-lr", type=_rate, default=0.005, show_default=True, help="Of the first chunk; falls to 0."),
    click.option("--ttt-sequences", type=_positive, default=32, show_default=True, help="Windows per step."),
    click.option("--ttt-update", type=click.Choice(["sgd", "muon"]), default="sgd", show_default=True),
    click.option("--ttt-freeze", type=click.IntRange(min=0), default=0, show_default=True, help="First blocks kept."),
    click.option("--slot-steps", type=_positive, default=5, show_default=True, help="Of AdamW, for each window."),
    click.option("--slot-lr", type=_rate, default=0.003, show_default=True),
)


def fit_options(command: Command) -> Command:
    """Add --fit and --margin; their values are the arguments of `fit_margin`."""
    for option in reversed(_FIT_OPTIONS):
        command = option(command)
    return command


def size_options(command: Command) -> Command:
    """Add --bytes and --bits-per-weight, as `artifact_bytes` and `bits_per_weight`."""
    for option in reversed(_SIZE_OPTIONS):
        command = option(command)
    return command


def fit_margin(fit: bool, margin: int | None) -> int | None:
    """Bytes to leave under the cap by a fitted recipe; None when none is fitted."""
    if margin is not None and not fit:
        raise UsageError("--margin without --fit", hint="it says how the recipe is fitted")
    return (margin or 0) if fit else None


def adaptation_options(command: Command) -> Command:
    """Add the options; their values are the arguments of `adaptation`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def adaptation(
    *,
    ttt_chunk: int | None,
    ttt_epochs: int,
    ttt_lr: float,
    ttt_sequences: int,
    ttt_update: str,
    ttt_freeze: int,
    slot_steps: int,
    slot_lr: float,
) -> "Adaptation":
    """The settings that the options state."""
    from verify.scoring.adaptation import Adaptation

    return Adaptation(
        chunk=ttt_chunk,
        epochs=ttt_epochs,
        lr=ttt_lr,
        sequences=ttt_sequences,
        update=ttt_update,
        frozen_blocks=ttt_freeze,
        slot_steps=slot_steps,
        slot_lr=slot_lr,
    )
