"""Calibration files: what `pgolf calibrate` found out about a checkpoint's layers, for GPTQ.

A safetensors file of `hessian/NAME` float (columns, columns), the second moments of the layer's inputs, and
`sensitivity/NAME` float (rows,), those of the gradients of its outputs.  Its metadata names the checkpoint it is of.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes
from codec.storage.checkpoint import read_checkpoint

HESSIAN, SENSITIVITY, CHECKPOINT = "hessian/", "sensitivity/", "checkpoint_sha256"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """By tensor name: hessians float (columns, columns), sensitivities float (rows,).

    batch_tokens: over how many tokens a Hessian sums; None where the file does not tell.
    """

    hessians: dict[str, np.ndarray]
    sensitivities: dict[str, np.ndarray]
    batch_tokens: float | None


def read_hessians(path: str | Path, checkpoint: str | Path, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The Hessians of a calibration file by tensor name.  As `read_layers`."""
    return read_layers(path, checkpoint, tensors).hessians


def read_layers(path: str | Path, checkpoint: str | Path, tensors: Mapping[str, np.ndarray]) -> Layers:
    """What a calibration file holds.  checkpoint: the file that `tensors` are of.

    Raises: InputError when it is no calibration file, one of another checkpoint, or a Hessian or a sensitivity does
    not fit its tensor.
    """
    arrays, notes = read_checkpoint(path)
    hessians, sensitivities = (
        {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
        for kind in (HESSIAN, SENSITIVITY)
    )
    calibrated, again = notes.get(CHECKPOINT), f"run `pgolf calibrate {checkpoint}`"
    if not hessians or not isinstance(calibrated, str):
        raise InputError("is not a calibration file", where=str(path), hint="make one with `pgolf calibrate`")
    found = sha256(checkpoint)
    if calibrated != found:
        raise InputError(
            f"was made from a checkpoint of sha256 {calibrated:.12}, {checkpoint} has {found:.12}",
            where=str(path),
            hint=again,
        )
    for name, array in hessians.items():
        shape = tensors[name].shape if name in tensors else ()
        if len(shape) != 2 or array.dtype.kind != "f" or array.shape != (shape[1], shape[1]):
            raise InputError(
                f"the Hessian of `{name}` is {array.dtype} {array.shape}, the tensor is {shape or 'missing'}",
                where=str(path),
                hint=again,
            )
        if not np.isfinite(array).all():
            raise InputError(f"the Hessian of `{name}` holds values that are not finite", where=str(path), hint=again)
    for name, array in sensitivities.items():
        rows = tensors[name].shape[:1] if name in tensors else ()
        if array.dtype.kind != "f" or array.shape != rows or not (np.isfinite(array) & (array >= 0)).all():
            raise InputError(
                f"the sensitivities of `{name}` are {array.dtype} {array.shape}, need {rows}, finite, none negative",
                where=str(path),
                hint=again,
            )
    return Layers(hessians=hessians, sensitivities=sensitivities, batch_tokens=_batch_tokens(notes))


def _batch_tokens(notes: Mapping[str, object]) -> float | None:
    tokens, sequences, batch = (notes.get(key) for key in ("tokens", "sequences", "batch"))
    if not (isinstance(tokens, int) and isinstance(sequences, int) and isinstance(batch, int)):
        return None
    return tokens / math.ceil(sequences / batch) if min(tokens, sequences, batch) > 0 else None


def sha256(path: str | Path) -> str:
    """Of the file's content, in hexadecimal."""
    return hashlib.sha256(read_bytes(path)).hexdigest()
