"""Where a training checkpoint keeps its state dict: beside optimizers, counters and settings."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from codec.errors import InputError

# Names of the model's own weights, those that say so best first.
KEYS = ("model", "model_state_dict", "state_dict", "net", "network", "weights", "module", "params", "gpt")
CONFIGS = ("config", "model_config", "model")  # names of the model's settings
SIZES = {"vocab_size", "layers", "dim", "heads"}  # what settings of the toolkit's own model hold
DEPTH = 3  # {"state": {"model": {...}}} is two


class Nest(NamedTuple):
    """state: the mapping that holds the tensors.  key: its dotted name, "" for the whole content.

    others: names beside it that hold no tensors, or an optimizer's.  models: further tensors and mappings of them,
    such as an average.  config: metadata found beside it, {} or the model's config.
    """

    state: Mapping[Any, Any]
    key: str = ""
    others: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    config: Mapping[str, Any] = {}


def find_state(content: Mapping[Any, Any]) -> Nest:
    """What the content keeps under a known name, else the only mapping of tensors there is, else the content itself.

    Tensors beside that mapping are left out when they are no matrices: `{"anything": {...}, "loss": tensor}`.
    A mapping without tensors is a config whatever its name: `{"model": {"dim": 32}, "state_dict": {...}}`.

    Raises: InputError naming the places when it cannot be told which of several holds the model.
    """
    return _find(content, "", DEPTH, {})


def _find(content: Mapping[Any, Any], path: str, depth: int, seen: dict[int, bool]) -> Nest:
    inner = {key: each for key, each in content.items() if isinstance(key, str) and isinstance(each, Mapping)}
    weights = {key: each for key, each in inner.items() if not key.startswith("optim")}
    places = {key: each for key, each in weights.items() if _holds_tensors(each, depth, seen)}
    known = [key for key in KEYS if key in places]
    matrices = [str(key) for key, each in content.items() if _is_tensor(each) and each.dim() > 1]
    if not places:
        return Nest(content, path, config=_config(inner))
    if not known and matrices:
        raise InputError(
            f"holds matrices itself (`{matrices[0]:.40}`) and tensors in `{next(iter(places)):.40}`; neither is named "
            "as the model",
            hint=f"save the state dict alone, or under one of {', '.join(KEYS)}",
        )
    if not known and len(places) > 1:
        raise InputError(
            f"holds tensors in {', '.join(f'`{key:.40}`' for key in sorted(places)[:6])}, and none is known to be the "
            "model",
            hint=f"save the state dict alone, or under one of {', '.join(KEYS)}",
        )
    key = known[0] if known else next(iter(places))
    inside = f"{path}.{key}" if path else key
    found = _find(places[key], inside, depth - 1, seen) if depth > 1 else Nest(places[key], inside)
    models = tuple(str(each) for each in content if each != key and (each in places or _is_tensor(content[each])))
    others = tuple(str(each) for each in content if each != key and str(each) not in models)
    return found._replace(
        others=(*others, *found.others), models=(*models, *found.models), config=found.config or _config(inner)
    )


def _holds_tensors(content: Mapping[Any, Any], depth: int, seen: dict[int, bool]) -> bool:
    """seen: what was found in a mapping, by its id; a hostile file can hold one in a million places."""
    if id(content) not in seen:
        inner = (each for each in content.values() if depth > 1 and isinstance(each, Mapping))
        seen[id(content)] = False  # while it is looked at: it may hold itself
        seen[id(content)] = _has_tensor(content) or any(_holds_tensors(each, depth - 1, seen) for each in inner)
    return seen[id(content)]


def _has_tensor(content: Mapping[Any, Any]) -> bool:
    return any(map(_is_tensor, content.values()))


def _is_tensor(each: Any) -> bool:
    """By what torch.load builds; nothing else in a checkpoint has a device and a layout."""
    return hasattr(each, "layout") and hasattr(each, "device")


def _config(inner: Mapping[str, Mapping[Any, Any]]) -> Mapping[str, Any]:
    """{"config": settings} where a mapping beside the weights is one of this toolkit's models."""
    for key in CONFIGS:
        if key in inner and inner[key].keys() >= SIZES:
            return {"config": dict(inner[key])}
    return {}
