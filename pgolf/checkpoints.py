"""Checkpoints as models: what a file lacks of names and config is read off its shapes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packager.importers.imported import Imported

BANKED = "banked"  # the layout of pull request 1176's checkpoints


def read_weights(path: Path) -> "Imported":
    """Like `packager.importers.read_any`, but banked matrices are split; the metadata then says layout "banked".

    Raises: InputError for a file that no reader knows, or banks that do not divide into layers.
    """
    from codec.errors import InputError
    from packager.importers.read_any import read_any

    imported = read_any(path)
    if not any(name.endswith("_bank") for name in imported.tensors):
        return imported
    from trainer.presets.published_layouts import split_banks  # with torch, which a file without banks can do without

    try:
        return replace(
            imported,
            tensors=split_banks(imported.tensors),
            stored=None if imported.stored is None else split_banks(imported.stored),
            metadata={**imported.metadata, "layout": BANKED},
        )
    except InputError as error:
        error.where = f"{path}, {error.where}"
        raise


def read_model(path: Path) -> "Imported":
    """Like `read_weights`, for a checkpoint that is to run: its metadata holds the model's config.

    Without one the file must be of a seed system: sizes and switches are those its names and shapes tell, and a note
    says which.

    Raises: as `read_weights`; InputError for a file whose model cannot be told.
    """
    from codec.errors import InputError
    from trainer.presets.published_layouts import describe_config, read_config

    imported = read_weights(path)
    if isinstance(imported.metadata.get("config"), dict):
        return imported
    try:
        config = read_config({name: array.shape for name, array in imported.tensors.items()})
    except InputError as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise
    return replace(
        imported,
        metadata={**imported.metadata, "config": config.to_dict()},
        notes=(*imported.notes, f"model read off the shapes: {describe_config(config)}"),
    )


def preset_toml(notes: Mapping[str, Any], named: str | None = None) -> str | None:
    """TOML of the preset that a submission's script trains: that of the name or file, else what the metadata say.

    None when they do not say.  Raises: UsageError as `find_preset`, and for a preset of another model; InputError for
    metadata that no training wrote.
    """
    from codec.errors import UsageError
    from trainer.model.config import GPTConfig
    from trainer.presets.catalog import find_preset
    from trainer.presets.preset import Preset

    if named is None:
        preset = Preset.of_checkpoint(notes)
        return preset.to_toml() if preset else None
    preset, model = find_preset(named), GPTConfig.from_dict(notes["config"])
    if replace(preset.model, vocab_size=model.vocab_size) != model:
        raise UsageError(
            f"preset {preset.name} is not of this checkpoint's model",
            hint="name the preset that it was trained by, or pass --eval-only",
        )
    return replace(preset, model=model).to_toml()
