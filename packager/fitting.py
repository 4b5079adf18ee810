"""`--fit`: the recipe's steps chosen so that code and artifact land at or just under cap - margin."""

from collections.abc import Mapping
from typing import Any

from codec.allocation.fit import fit_recipe
from codec.allocation.plan import FittedRecipe
from codec.errors import LimitError, UsageError
from codec.progress import Progress
from codec.quantization.recipe import Recipe
from codec.storage.calibration_file import Layers
from packager.importers.imported import STORED, Imported


def check_fit(recipe: str, cap: int, margin: int | None) -> None:
    """margin: bytes to leave, None when nothing is fitted.  Raises: UsageError for what does not go together."""
    if margin is None:
        return
    if recipe == STORED:
        raise UsageError(f"recipe `{STORED}` keeps the file's own levels, no step can be fitted", hint="name a recipe")
    if not 0 <= margin < cap:
        raise UsageError(
            f"a margin of {margin:,} bytes under a cap of {cap:,}", hint="it is at least 0 and below the cap"
        )


def fitted(
    imported: Imported,
    recipe: Recipe,
    layers: Layers | None,
    *,
    goal: int,
    code_bytes: int,
    meta: Mapping[str, Any],
    progress: Progress,
) -> FittedRecipe:
    """goal: cap - margin, for code and artifact together.  meta: what the artifact holds beside the weights.

    Raises: LimitError when the code alone is over it, or the coarsest steps are.
    """
    if code_bytes >= goal:
        raise LimitError(
            f"the code alone has {code_bytes:,} bytes, {code_bytes - goal:,} over the {goal:,} that the cap leaves",
            hint="shorten the script, or raise the cap",
        )
    return fit_recipe(imported.tensors, recipe, goal - code_bytes, meta, layers, progress)
