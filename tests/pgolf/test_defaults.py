"""A command and its function do the same when nothing is said: every default of an option against that of the code.

Options state their defaults themselves, because help must not import torch; this table is what keeps them equal.
"""

import dataclasses
import inspect

import pytest

from codec.budget import PARAMETER_GOLF
from pgolf.__main__ import COMMANDS, LazyGroup, root
from trainer.calibration import calibrate
from trainer.data.dataset import build_dataset
from verify.audit.perturbations import Scope
from verify.sandbox.launch import Settings
from verify.scoring.adaptation import Adaptation

ADAPTATION = {
    "ttt_epochs": "epochs",
    "ttt_lr": "lr",
    "ttt_sequences": "sequences",
    "ttt_update": "update",
    "ttt_freeze": "frozen_blocks",
    "slot_steps": "slot_steps",
    "slot_lr": "slot_lr",
}
SAME = [
    *[(command, option, Adaptation, field) for command in ("verify", "audit") for option, field in ADAPTATION.items()],
    *[("verify", each, Settings, each) for each in ("batch", "device", "time_limit")],
    *[("audit", each, Scope, each) for each in ("ranks", "cuts", "sums", "coded")],
    ("calibrate", "seed", calibrate, "seed"),
]


def option(command, name):
    group = root
    assert isinstance(group, LazyGroup)
    found = {each.name: each for each in group.get_command(None, command).params}
    return found[name]


def default(of, name):
    if dataclasses.is_dataclass(of):
        return next(field.default for field in dataclasses.fields(of) if field.name == name)
    return inspect.signature(of).parameters[name].default


@pytest.mark.parametrize(("command", "name", "of", "field"), SAME)
def test_an_option_has_the_default_of_the_code(command, name, of, field):
    assert option(command, name).default == default(of, field)


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("data", "vocab_size", default(build_dataset, "vocab_size")),
        ("data", "val_fraction", default(build_dataset, "val_fraction")),
        ("verify", "stride", default(Settings, "stride")),
        ("audit", "stride", default(Settings, "stride")),
    ],
)
def test_a_default_that_help_words_is_the_codes(command, name, value):
    assert f"[default: {value}" in option(command, name).help


def test_what_quantizes_has_one_default_recipe():
    from codec.model_file import encode_checkpoint
    from codec.quantization.recipe_files import DEFAULT_RECIPE
    from packager.submission import PackOptions

    assert default(encode_checkpoint, "recipe") == default(PackOptions, "recipe") == DEFAULT_RECIPE
    for command in ("pack", "encode"):
        assert f"[default: {DEFAULT_RECIPE}]" in option(command, "recipe").help


def test_the_cap_is_the_challenges():
    capped = [name for name in COMMANDS if any(each.name == "cap" for each in root.get_command(None, name).params)]
    assert {"pack", "verify"} <= set(capped)
    assert all(option(name, "cap").default == PARAMETER_GOLF.total_bytes for name in capped)
