"""The toolkit's own script as a submission carries it: with its training, or for evaluation only."""

import re
from dataclasses import dataclass
from importlib import resources

from codec.budget import PARAMETER_GOLF
from packager.script.bundle import Bundle, bundle

SCRIPT = "train_gpt.py"  # the name that the challenge runs
FULL, EVAL_ONLY = "train_gpt.py", "eval_gpt.py"  # of packager/template
PRESET, RECIPE = "preset.toml", "recipe.toml"  # beside the readable script, inside the packed one


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What the script trains and how it packs that.

    preset, recipe: TOML text.  cap: bytes that code and artifact may have together.  margin: fit the recipe's steps so
    that this many of them are left; None packs by the recipe as it is.
    """

    preset: str
    recipe: str
    cap: int = PARAMETER_GOLF.total_bytes
    margin: int | None = None

    def source(self) -> str:
        """The readable script, with these numbers among its settings."""
        text = template(FULL)
        for name, value in (("CAP", f"{self.cap:_}"), ("MARGIN", f"{self.margin}")):
            text, count = re.subn(rf"^{name} = \S+", f"{name} = {value}", text, flags=re.MULTILINE)
            assert count == 1, name
        return text


def template(name: str) -> str:
    """The source of a script as it lies in packager/template."""
    return (resources.files("packager") / "template" / name).read_text("utf-8")


def reference_bundle(training: Training | None) -> Bundle:
    """The script with its modules; None: the one that evaluates only."""
    if training is None:
        return bundle(template(EVAL_ONLY), SCRIPT)
    return bundle(training.source(), SCRIPT, texts={PRESET: training.preset, RECIPE: training.recipe})
