"""What a report may spend, and what each of its paths is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from codec.budget import PARAMETER_GOLF
from codec.errors import InputError, UsageError

if TYPE_CHECKING:
    from verify import HeldOut
    from verify.claims.significance import SeedScores

Kind = Literal["checkpoint", "artifact", "submission", "runs"]
LOGS = (".log", ".txt", ".json")
COMMON = ("submission", "run", "model", "checkpoint", "train")  # names that many folders and files have


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a report may spend.

    checkpoint: float weights of the one artifact or submission; hessians: their calibration.  recipe: for checkpoints,
    None for their own levels, or what `pgolf measure` takes.  heldout: text that the one submission is scored on, at
    this stride; without it no model runs.  measured_losses: of how many tensors the loss is measured.  against: what
    runs have to beat.
    """

    cap: int = PARAMETER_GOLF.total_bytes
    checkpoint: Path | None = None
    hessians: Path | None = None
    recipe: str | None = None
    heldout: "HeldOut | None" = None
    stride: int | None = None
    threads: int | None = None
    measured_losses: int = 0
    against: "SeedScores | None" = None


def kind_of(path: Path) -> Kind:
    """What a path is, by its names and first bytes.  Raises: InputError for a path that is not there."""
    from codec.decoder import MAGIC
    from verify.submission.byte_count import MAIN

    if path.is_dir():
        return "submission" if (path / MAIN).is_file() else "runs"
    if not path.exists():
        raise InputError("no such file", where=str(path), hint="check the path")
    if path.suffix in LOGS:
        return "runs"
    with path.open("rb") as file:
        return "artifact" if file.read(3) == MAGIC[:3] else "checkpoint"


def check_options(kinds: "Sequence[tuple[Path, Kind]]", options: Options) -> None:
    """Raises: UsageError for options of which it is not clear what they belong to."""
    packed = [path for path, kind in kinds if kind in ("artifact", "submission")]
    submissions = [path for path, kind in kinds if kind == "submission"]
    checkpoints = [path for path, kind in kinds if kind == "checkpoint"]
    if options.checkpoint and len(packed) != 1:
        raise UsageError(f"--checkpoint belongs to one artifact or submission, {len(packed)} are given")
    if options.hessians and not options.checkpoint and (packed or len(checkpoints) != 1):
        raise UsageError("--hessians without --checkpoint", hint="name the checkpoint that was calibrated")
    if options.measured_losses and not options.heldout:
        raise UsageError("--measure-loss without --data", hint="name the folder with the held-out text")
    if options.measured_losses and not options.checkpoint and (packed or len(checkpoints) != 1):
        raise UsageError("--measure-loss without --checkpoint", hint="name the checkpoint it was packed from")
    if options.heldout and not options.measured_losses and len(submissions) != 1:
        raise UsageError(f"--data is for one submission, {len(submissions)} are given", hint="make a report of each")
    if options.recipe and not checkpoints:
        raise UsageError("--recipe is for a checkpoint, none is given", hint="what is packed has its levels already")


def subject_name(path: Path) -> str:
    """The last part of a path, and the one before where it is a name that many have."""
    path = path.resolve() if len(path.parts) < 2 else path
    return "/".join(path.parts[-2:]) if path.stem in COMMON and len(path.parts) > 1 else path.name
