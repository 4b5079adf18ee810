"""Checkpoints as models: what a file lacks of names and config is read off its shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.model_file import DecodedModel
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


def joined(decoded: "DecodedModel") -> "DecodedModel":
    """With the matrices that `read_weights` split in banks again.  Raises: InputError when they do not fit."""
    if decoded.meta.get("layout") != BANKED:
        return decoded
    from codec.storage.safetensors_file import Stored
    from trainer.presets.published_layouts import join_banks

    found = join_banks(decoded.values).items()
    return replace(decoded, tensors={name: decoded.tensors.get(name, Stored("F32", each)) for name, each in found})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where the config of a checkpoint without one is stated.  config: a TOML file with [model], or a JSON object.

    preset: one whose switches the model has, its sizes being the checkpoint's.  settings: KEY=VALUE; they win.
    trains: whether the preset says more than that, so that it may be named beside a checkpoint's own config.
    """

    config: Path | None = None
    preset: str | None = None
    settings: tuple[str, ...] = ()
    trains: bool = False

    def fields(self) -> dict[str, Any]:
        """What is stated, by field of GPTConfig.  Raises: UsageError and InputError for what is no such statement."""
        from codec.storage.json_file import read_json_object
        from trainer.presets.catalog import find_preset, stated_model
        from trainer.presets.overrides import model_settings
        from trainer.presets.published_layouts import HIDDEN

        stated: dict[str, Any] = {}
        if self.preset:
            model = find_preset(self.preset).model.to_dict()
            stated |= {name: model[name] for name in HIDDEN}
        if self.config:
            json = self.config.suffix == ".json"
            stated |= read_json_object(self.config) if json else stated_model(self.config)
        return stated | model_settings(self.settings)


UNSTATED = ModelSource()


def read_model(path: Path, source: ModelSource = UNSTATED) -> "Imported":
    """Like `read_weights`, for a checkpoint that is to run: its metadata holds the model's config.

    Without one the file must be of the toolkit's model.  Names and shapes tell sizes and most switches, `source` may
    state the others; what is left is guessed: a note says so, and the metadata name it under "guessed".

    Raises: as `read_weights`; InputError for a file whose model cannot be told, or is not the one stated; UsageError
    when a config is stated beside the file's own.
    """
    from codec.errors import InputError, UsageError
    from codec.storage.atomic_files import within
    from trainer.presets.published_layouts import guesses, read_config

    imported = read_weights(path)
    if isinstance(imported.metadata.get("config"), dict):
        if source.config or source.settings or (source.preset and not source.trains):
            raise UsageError(f"{path} states its model config itself", hint="leave out --config, --preset and --set")
        return imported
    stated = source.fields()
    try:
        with within(path):
            config = read_config({name: array.shape for name, array in imported.tensors.items()}, stated=stated)
    except UsageError as error:
        if stated:  # of a wrong type, or not fitting the rest
            raise
        raise InputError(error.message, where=error.where or str(path), hint=error.hint) from None
    guessed = guesses(config, stated)
    metadata, notes = {**imported.metadata, "config": config.to_dict()}, imported.notes
    if guessed:
        metadata["guessed"] = guessed
        notes = (*notes, f"{guess_warning(guessed)}; state them with --config FILE, --preset NAME or --set KEY=VALUE")
    return replace(imported, metadata=metadata, notes=notes)


def guess_warning(guessed: Mapping[str, Any]) -> str:
    """guessed: fields of the model's config that nobody stated."""
    return (
        f"warning, the model is a guess, no shape shows {', '.join(f'{key} {each}' for key, each in guessed.items())}"
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
