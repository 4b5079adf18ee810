"""What was chosen for each tensor, and what it costs; what to say when no choice fits."""

import math
import re
from dataclasses import dataclass
from typing import Any

from codec.allocation.curve import Point
from codec.encoder import Tensor
from codec.errors import LimitError
from codec.measurement.byte_ledger import ByteLedger
from codec.quantization.coarsening import finest
from codec.quantization.recipe import Recipe, Rule


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The step of one tensor and of those equal to it.  rule, before: the recipe's; fitted, after: instead of it."""

    names: tuple[str, ...]
    rule: Rule
    fitted: Rule
    octaves: float
    weights: int
    energy: float
    before: Point
    after: Point

    @property
    def snr_db(self) -> tuple[float, float]:
        """Energy of the weights over squared error, (before, after)."""
        before, after = (_decibel(self.energy, each.error) for each in (self.before, self.after))
        return before, after

    def to_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "weights": self.weights,
            "rule": self.fitted.table(),
            "octaves": self.octaves,
            "bytes": [round(self.before.bytes), round(self.after.bytes)],
            "snr_db": [round(each, 3) for each in self.snr_db],
            "nats": [_rounded(self.before.nats), _rounded(self.after.nats)],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedRecipe:
    """A recipe like any other, whose artifact of `treated` has at most `limit` bytes.

    predicted_bytes: what the measured curves said of these steps before they were encoded.
    recipe_bytes: of the recipe that was fitted.  choices: tensors whose step was free.
    """

    recipe: Recipe
    treated: dict[str, Tensor]
    limit: int
    recipe_bytes: int
    predicted_bytes: int
    artifact_bytes: int
    choices: tuple[Choice, ...]

    @property
    def finest(self) -> bool:
        """Whether no step can be finer, so that bytes are left over."""
        return all(each.octaves <= finest(each.rule) for each in self.choices)

    @property
    def snr_db(self) -> tuple[float, float]:
        """Of all tensors with a choice together, (before, after)."""
        energy = sum(each.energy for each in self.choices)
        before, after = (
            (
                _decibel(energy, sum(error))
                for error in zip(*((c.before.error, c.after.error) for c in self.choices), strict=True)
            )
            if self.choices
            else (math.inf, math.inf)
        )
        return before, after

    @property
    def nats(self) -> tuple[float, float] | None:
        """Predicted to be added to the loss of a token, over the calibrated tensors; None without any."""
        known = [(c.before.nats, c.after.nats) for c in self.choices if c.before.nats is not None]
        if not known:
            return None
        return sum(before for before, _ in known), sum(after or 0.0 for _, after in known)

    def to_dict(self) -> dict[str, Any]:
        """JSON of the plan."""
        nats = self.nats
        return {
            "recipe": self.recipe.name,
            "limit_bytes": self.limit,
            "recipe_bytes": self.recipe_bytes,
            "predicted_bytes": self.predicted_bytes,
            "artifact_bytes": self.artifact_bytes,
            "left_bytes": self.limit - self.artifact_bytes,
            "finest": self.finest,
            "snr_db": [round(each, 3) for each in self.snr_db],
            "nats": [_rounded(each) for each in nats] if nats else None,
            "choices": [each.to_dict() for each in self.choices],
        }


def cannot_fit(
    costs: ByteLedger, limit: int, at: str = "with the coarsest steps, which leave 6 dB of every matrix"
) -> LimitError:
    """costs: of the coarsest artifact.  at: what that is."""
    kept = [row for row in costs.rows if not row.quantized and row.stored_as != "tied"]
    dearest = sorted(costs.rows, key=lambda row: (-row.bytes, row.name))[:3]
    names = ", ".join(f"{row.name} ({row.stored_as}, {row.bytes:,.0f} bytes)" for row in dearest)
    floats = sum(row.bytes for row in kept)
    give_up = f"the recipe keeps {len(kept)} tensors as they are, {floats:,.0f} bytes: give the largest fewer bits, or "
    return LimitError(
        f"{at}, the artifact has {costs.artifact_bytes:,} bytes, "
        f"{costs.artifact_bytes - limit:,} over its limit of {limit:,}",
        hint=f"{give_up if floats > costs.artifact_bytes / 8 else ''}train fewer layers, a smaller vocabulary or "
        f"smaller tables; the dearest are {names}",
    )


def escaped(name: str) -> str:
    """A glob pattern that matches this name alone."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _decibel(energy: float, error: float) -> float:
    if not error:
        return math.inf
    return 10 * math.log10(energy / error) if energy else -math.inf


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
