"""Work in stages whose shares of the whole are guessed beforehand, told as one count: what a bar's time left needs."""

from collections.abc import Mapping

import numpy as np

from codec.progress import Progress
from codec.quantization.recipe import Recipe

UNITS = 1000  # of all stages together
# What other work costs beside encoding as many weights, which takes 6 s for 36 M: rounding by a rule (1 s) or jointly,
# as recipe `best` does (50 s, of 11 s for its levels), and decoding.
RULE, JOINT, DECODE = 0.2, 5.0, 0.4


class Stages:
    """costs: of every stage in its order, in any unit.  progress: told how many of UNITS are done, and a note."""

    def __init__(self, progress: Progress, costs: Mapping[str, float]) -> None:
        self._progress, self._costs = progress, costs
        self._all = sum(costs.values())

    def begin(self, name: str) -> None:
        self.tell(name, 0.0, name)

    def tell(self, name: str, part: float, note: str) -> None:
        """part: of this stage that is done, 0 to 1."""
        before = 0.0
        for each, cost in self._costs.items():
            if each == name:
                break
            before += cost
        self._progress(int(UNITS * (before + min(part, 1.0) * self._costs[name]) / self._all), note)

    def of(self, name: str, total: int) -> Progress:
        """Progress of one stage by units of its own."""
        return lambda done, note: self.tell(name, done / max(total, 1), f"{name}, {note}" if note else name)

    def end(self) -> None:
        self._progress(UNITS, "")


def quantizing(recipe: Recipe, tensors: Mapping[str, np.ndarray]) -> float:
    """What it costs to quantize the tensors, in weights that are encoded."""
    joint = {name for names in recipe.joint_tensors(tensors).values() for name in names}
    return sum((JOINT if name in joint else RULE) * each.size for name, each in tensors.items())
