"""One preset: a name for the settings of a model and of its training, and the TOML text that says it all."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from codec.errors import InputError, UsageError
from codec.toml_text import toml_line
from trainer.model.config import GPTConfig
from trainer.presets.preset_file import VERSION, parse_preset
from trainer.presets.setting_values import CONFIGS
from trainer.presets.train_config import TrainConfig


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

    @classmethod
    def of(cls, tables: dict[str, Any]) -> "Preset":
        """The preset of the keys that `parse_preset` gives, nothing left to inherit.

        Raises: UsageError for a key that is missing, or values that do not fit together.
        """
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
        return cls(**{**tables, **configs})

    @classmethod
    def of_checkpoint(cls, notes: Mapping[str, Any]) -> "Preset | None":
        """What a checkpoint's metadata say of how it was trained; None where they do not.

        Raises: InputError for metadata that no training wrote.
        """
        if "train" not in notes:
            return None
        try:
            about = {"name": notes["preset"], **{key: notes[key] for key in ("description", "fixed_vocab")}}
            train = {**notes["train"], "momentum": tuple(notes["train"]["momentum"])}
            return cls.of({**about, "model": notes["config"], "train": train})
        except (KeyError, TypeError, UsageError) as error:
            raise InputError(
                f"its metadata describe no training ({error})", hint="pass --preset or --eval-only"
            ) from None

    @classmethod
    def parsed(cls, text: str) -> "Preset":
        """The inverse of `to_toml`.  Raises: UsageError as `parse_preset` and `of`."""
        tables = parse_preset(text.encode())
        if "extends" in tables:
            raise UsageError("extends another preset, here it must say everything itself")
        return cls.of(tables)

    def with_vocabulary(self, pieces: int, tokenizer: str) -> "Preset":
        """The preset for a tokenizer of so many pieces.

        Raises: UsageError when the vocabulary size is part of the preset and another one.
        """
        if pieces == self.model.vocab_size:
            return self
        if self.fixed_vocab:
            raise UsageError(
                f"has {pieces} pieces, preset {self.name} needs {self.model.vocab_size}",
                where=tokenizer,
                hint="pass the tokenizer of that size, or train cpu-demo",
            )
        return replace(self, model=replace(self.model, vocab_size=pieces))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the form that a preset's file has when it extends nothing."""
        return {
            "name": self.name,
            "description": self.description,
            "fixed_vocab": self.fixed_vocab,
            "model": self.model.to_dict(),
            "train": self.train.to_dict(),
        }

    def to_toml(self) -> str:
        """A preset's file that extends nothing; settings at their default are left out.

        >>> from trainer import find_preset
        >>> print(find_preset("tiny").to_toml().partition("[train]")[0])
        version = 1
        name = "tiny"
        description = "20 thousand weights, seconds; for trying out the tools"
        fixed_vocab = false
        <BLANKLINE>
        [model]
        vocab_size = 256
        ...
        """
        head = {"version": VERSION, **self.to_dict()}
        text = "".join(toml_line(key, value) for key, value in head.items() if key not in CONFIGS)
        for table in CONFIGS:
            config = getattr(self, table)
            own = [field.name for field in fields(config) if getattr(config, field.name) != field.default]
            text += f"\n[{table}]\n" + "".join(toml_line(name, getattr(config, name)) for name in own)
        return text
