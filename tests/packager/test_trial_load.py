"""A packed script is tried on its artifact: what it loads is compared, and nothing of the try stays behind."""

import linecache
import sys

import numpy as np
import pytest

from codec.decoder import QuantizedTensor
from codec.encoder import encode
from codec.errors import InputError
from packager.script.wrapper import wrap
from packager.trial_load import trial_load

# A loader of its own, which needs a module that only the script carries, under a name that the toolkit has too.
SCRIPT = """
import torch
from codec.decoder import CARRIED
STATE = {state}
class Model:
    def state_dict(self):
        return {{name: torch.tensor(values, dtype=torch.float32) for name, values in STATE.items()}}
def load(path):
    open(path, "rb").close()
    return Model()
"""
WEIGHTS = {"a": np.array([[1, 2], [3, 4]], np.float32), "b": np.array([0.5], np.float32)}


@pytest.mark.parametrize(
    ("state", "other"),
    [
        ({"a": [[1.0, 2.0], [3.0, 4.0]], "b": [0.5]}, None),
        ({"a": [[1.0, 2.0], [3.0, 4.0]], "b": [0.5000001]}, "b"),
        ({"a": [[1.0, 3.0], [2.0, 4.0]], "b": [0.5]}, "a"),
        ({"a": [[1.0, 2.0], [3.0, 4.0]]}, "b"),
        ({"a": [[1.0, 2.0], [3.0, 4.0]], "b": [0.5], "c": [0.0]}, "c"),
    ],
    ids=["the artifact's", "a last bit", "transposed", "one is missing", "one more"],
)
def test_what_is_loaded_must_be_what_the_artifact_holds(state, other):
    script = wrap(SCRIPT.format(state=state), {"codec.decoder": "CARRIED = 1\n"})
    before = {*sys.modules}, [*sys.meta_path], {*linecache.cache}
    if other:
        with pytest.raises(InputError, match=rf"train_gpt\.py: loads another `{other}` than the artifact holds"):
            trial_load(script, encode(WEIGHTS, {}), WEIGHTS, "train_gpt.py")
    else:
        trial_load(script, encode(WEIGHTS, {}), WEIGHTS, "train_gpt.py")
    assert not hasattr(sys.modules["codec.decoder"], "CARRIED")
    after = {name for name in sys.modules if name.partition(".")[0] in ("codec", "packager", "pgolf_trial")}
    assert after <= before[0]
    assert sys.meta_path == before[1]
    assert not [each for each in {*linecache.cache} - before[2] if "train_gpt" in each]


def test_a_script_that_fails_on_its_way_leaves_nothing_behind():
    """It hangs a finder into the import system and replaces a module of the toolkit, then breaks."""
    broken = """
import sys, codec.decoder
sys.meta_path.insert(0, object())
sys.modules["codec.errors"] = codec.decoder
raise {error}("broken here")
"""
    modules, finders = {**sys.modules}, [*sys.meta_path]
    for error in ("ValueError", "MemoryError"):
        script = wrap(broken.format(error=error), {"codec.decoder": "CARRIED = 1\n"})
        with pytest.raises(InputError, match="cannot load the artifact that was packed with it \\(broken here\\)"):
            trial_load(script, encode(WEIGHTS, {}), WEIGHTS, "train_gpt.py")
        ours = {name: module for name, module in sys.modules.items() if name.startswith(("codec", "packager", "pgolf"))}
        assert ours.items() <= modules.items()
        assert sys.meta_path == finders


def test_a_quantized_tensor_is_loaded_as_it_was_packed():
    """Not as the artifact says: here it was encoded from a level more."""
    tensors = {"a": QuantizedTensor(np.array([[1, -2], [3, 4]], np.int8), np.ones(2, np.float16))}
    script = wrap(SCRIPT.format(state={"a": [[1.0, -2.0], [3.0, 4.0]]}), {"codec.decoder": "CARRIED = 1\n"})
    trial_load(script, encode(tensors, {}), tensors, "train_gpt.py")
    other = {"a": QuantizedTensor(np.array([[1, -2], [3, 5]], np.int8), np.ones(2, np.float16))}
    with pytest.raises(InputError, match="loads another `a`"):
        trial_load(script, encode(tensors, {}), other, "train_gpt.py")
