"""A name for all that an object holds: weights, buffers, optimizers, tables of counts, whatever kind they are of."""

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

PLAIN = (str, bytes, bytearray, int, float, complex, bool, type(None))


def state_digest(value: Any) -> str:
    """sha256 over tensors, arrays, plain values, containers and the attributes of other objects; "" when too deep.

    Of functions, classes and what keeps its content to itself only the name counts.
    """
    hasher = hashlib.sha256()
    try:
        _add(value, hasher.update, {})
    except RecursionError:
        return ""
    return hasher.hexdigest()


def _add(value: Any, update: Callable[[Any], None], seen: dict[int, tuple[int, Any]]) -> None:
    """seen: objects by id with a number each, kept so that no id is given twice; a circle ends at a known number."""
    if isinstance(value, PLAIN):
        update(f"{type(value).__name__} {value!r};".encode())
        return
    if id(value) in seen:
        update(f"again {seen[id(value)][0]};".encode())
        return
    seen[id(value)] = (len(seen), value)
    update(f"{type(value).__module__}.{type(value).__qualname__} ".encode())
    if isinstance(value, torch.Tensor):
        update(f"{value.dtype}{tuple(value.shape)}".encode())
        update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        update(f"{value.dtype}{value.shape}".encode())
        update(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
    elif isinstance(value, torch.Generator):
        _add(value.get_state(), update, seen)
    elif isinstance(value, dict):
        for key, held in value.items():
            _add(key, update, seen)
            _add(held, update, seen)
    elif isinstance(value, list | tuple | deque):
        for held in value:
            _add(held, update, seen)
    elif isinstance(value, set | frozenset):
        update("".join(sorted(map(repr, value))).encode())
    elif isinstance(value, type) or hasattr(value, "__code__"):
        update(f"{value.__module__}.{value.__qualname__};".encode())
    else:
        for name, held in sorted(getattr(value, "__dict__", {}).items()):
            _add(name, update, seen)
            _add(held, update, seen)
