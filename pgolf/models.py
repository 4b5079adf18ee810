"""Checkpoints as models: what a file lacks of names and config is read off its shapes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packager.foreign import Imported

BANKED = "banked"  # the layout of pull request 1176's checkpoints


def read_model(path: Path) -> "Imported":
    """Like `packager.foreign.read_any`, for a checkpoint that is to run: its metadata holds the model's config.

    Banked matrices are split; the metadata then says layout "banked".  Without a config the file must be of a seed
    system: sizes and switches are those its names and shapes tell, and a note says which.

    Raises: InputError for a file that no reader knows, or whose model cannot be told.
    """
    from codec.errors import InputError
    from packager.foreign import read_any
    from trainer.seeds import BANKS, describe, read_config, split_banks

    imported = read_any(path)
    found, notes = dict(imported.metadata), imported.notes
    try:
        if BANKS.keys() & imported.tensors.keys():
            stored = None if imported.stored is None else split_banks(imported.stored)
            imported = replace(imported, tensors=split_banks(imported.tensors), stored=stored)
            found["layout"] = BANKED
        if not isinstance(found.get("config"), dict):
            config = read_config({name: array.shape for name, array in imported.tensors.items()})
            found["config"] = config.to_dict()
            notes = (*notes, f"model read off the shapes: {describe(config)}")
    except InputError as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise
    return replace(imported, metadata=found, notes=notes)
