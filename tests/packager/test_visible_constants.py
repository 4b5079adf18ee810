"""Settings that a packed script shows are those of its source."""

import pytest

from codec.errors import UsageError
from packager.script.visible_constants import visible_constants
from tests.packager.field_scripts import SETTINGS

SOURCE = """\
import os
SEED = 1337
VOCAB_SIZE: int = 8192
class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data")
    layers = int(os.getenv("LAYERS", 11))
    rank = os.environ.get("RANK")
    train_steps = 5
TWICE = 1
TWICE = 2
MADE = len("x")
"""


def test_literals_and_defaults_are_shown_as_python_writes_them():
    shown = visible_constants(SOURCE, "x.py", ["VOCAB_SIZE", "SEED", "DATA_PATH", "LAYERS", "TRAIN_STEPS"])
    assert shown == {"VOCAB_SIZE": "8192", "SEED": "1337", "DATA_PATH": "'./data'", "LAYERS": "11", "TRAIN_STEPS": "5"}
    assert next(iter(shown)) == "VOCAB_SIZE"
    assert visible_constants(SETTINGS, "x.py", ["VOCAB_SIZE"]) == {"VOCAB_SIZE": "1024"}


@pytest.mark.parametrize(
    ("name", "message"), [("RANK", "no literal value"), ("MADE", "no literal value"), ("TWICE", "2 values: 1, 2")]
)
def test_what_has_no_single_value_is_refused(name, message):
    with pytest.raises(UsageError, match=message):
        visible_constants(SOURCE, "x.py", [name])
