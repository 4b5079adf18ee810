"""Named model-and-training settings: everything that decides a run except its data and its seed.

Those of the toolkit are the TOML files of this folder; a file whose name begins with _ is no preset, others extend it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.errors import UsageError
from codec.storage.atomic_files import read_bytes, within
from codec.suggestion import did_you_mean
from trainer.presets.preset import Preset
from trainer.presets.preset_file import parse_preset
from trainer.presets.setting_values import CONFIGS

FILES = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


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


def stated_model(path: Path) -> dict[str, Any]:
    """The fields of GPTConfig that a TOML file states under [model], itself or by what it extends; it may lack some.

    Raises: UsageError and InputError as `find_preset`.
    """
    model: dict[str, Any] = _tables(path, ())["model"]
    return model


def _load(path: Path) -> Preset:
    tables = _tables(path, ())
    with within(path):
        return Preset.of(tables)


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
    hint = f"{did_you_mean(name, PRESETS)} presets: {', '.join(PRESETS)}".lstrip()
    return UsageError(f"there is no preset `{name}`", hint=hint)


for _name, _path in FILES.items():
    if not _name.startswith("_"):
        add_preset(_load(_path))
