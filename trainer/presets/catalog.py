"""Named model-and-training settings: everything that decides a run except its data and its seed.

Those of the toolkit are the TOML files of this folder; a file whose name begins with _ is no preset, others extend it.
"""

from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from codec.errors import UsageError
from codec.storage.atomic_files import read_bytes, within
from codec.suggestion import nearest
from trainer.model.config import GPTConfig
from trainer.presets.preset_file import parse_preset
from trainer.presets.setting_values import CONFIGS
from trainer.presets.train_config import TrainConfig

FILES = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A name for one GPTConfig and one TrainConfig.

    fixed_vocab: the vocabulary size is part of the recipe; otherwise it follows the tokenizer.
    """

    name: str
    description: str
    model: GPTConfig
    train: TrainConfig
    fixed_vocab: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the form that a preset's file has when it extends nothing."""
        return {
            "name": self.name,
            "description": self.description,
            "fixed_vocab": self.fixed_vocab,
            "model": self.model.to_dict(),
            "train": self.train.to_dict(),
        }


PRESETS: dict[str, Preset] = {}


def add_preset(preset: Preset) -> None:
    """Make a preset known by its name; called in a plugin, `pgolf train` knows it:

        tiny = find_preset("tiny")
        add_preset(replace(tiny, name="tiny-long", train=tiny.train.shortened(400)))

    Raises: UsageError when there is one of that name.
    """
    if preset.name in PRESETS:
        raise UsageError(f"there is a preset `{preset.name}` already", hint="give it another name")
    PRESETS[preset.name] = preset


def find_preset(name_or_path: str | Path) -> Preset:
    """The preset of that name, or that a TOML file describes (trainer.presets.preset_file says how).

    >>> find_preset("cpu-demo").model.layers
    4

    Raises: UsageError naming the nearest preset and all there are, or the file and what in it is wrong; InputError for
    a file that cannot be read.
    """
    name = str(name_or_path)
    if name.endswith(".toml"):
        return _load(Path(name_or_path))
    if name in PRESETS:
        return PRESETS[name]
    raise _unknown(name)


def _load(path: Path) -> Preset:
    tables = _tables(path, ())
    with within(path):
        for key in ("name", "description"):
            if key not in tables:
                raise UsageError(f"lacks `{key}`", hint=f"write {key} = ... above its tables")
        configs = {}
        for table, config in CONFIGS.items():
            for field in fields(config):
                if field.default is MISSING and field.name not in tables[table]:
                    raise UsageError(
                        f"[{table}] lacks `{field.name}`", hint='state it, or let the file extend one: extends = "tiny"'
                    )
            configs[table] = config(**tables[table])
        return Preset(**{**tables, **configs})


def _tables(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """The file's keys, and those that it inherits: all but name and description.  extending: files that led here."""
    data = read_bytes(path)
    with within(path):
        own = parse_preset(data)
        if "extends" not in own:
            return own
        base = _inherited(own.pop("extends"), path.parent, (*extending, path.resolve()))
    merged = {table: {**base[table], **own[table]} for table in CONFIGS}
    return {"fixed_vocab": base.get("fixed_vocab", False), **own, **merged}


def _inherited(name: str, folder: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """The keys of the preset of that name, or of the TOML file of that name in the folder."""
    if name.endswith(".toml") or name in FILES:
        path = FILES.get(name, folder / name)
        if path.resolve() in extending:
            raise UsageError(f"extends `{name}`, which extends it: a circle", hint="let one of them extend nothing")
        return _tables(path, extending)
    if name not in PRESETS:
        raise _unknown(name)
    known = PRESETS[name]
    return {"fixed_vocab": known.fixed_vocab, "model": asdict(known.model), "train": asdict(known.train)}


def _unknown(name: str) -> UsageError:
    hint = f"{nearest(name, PRESETS)} presets: {', '.join(PRESETS)}".lstrip()
    return UsageError(f"there is no preset `{name}`", hint=hint)


for _name, _path in FILES.items():
    if not _name.startswith("_"):
        add_preset(_load(_path))
