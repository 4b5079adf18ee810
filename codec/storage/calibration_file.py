"""Calibration files: what `pgolf calibrate` found out about a checkpoint's tensors, for GPTQ and recipe `best`.

A safetensors file.  Of a layer that multiplies: `hessian/NAME` float (columns, columns), the second moments of its
inputs, and `sensitivity/NAME` float (rows,), those of the gradients of its outputs.  Of a table that is looked up:
`gradient/NAME` float (columns, columns), the second moments of the gradients at what was read, and `frequency/NAME`
float (rows,), the part of the lookups that read each row.  Of any other parameter: `fisher/NAME`, the second moments of
its gradient, in its own shape.  Its metadata names the checkpoint it is of.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codec.errors import InputError
from codec.storage.atomic_files import read_bytes
from codec.storage.checkpoint import read_checkpoint

HESSIAN, SENSITIVITY, GRADIENT, FREQUENCY, FISHER = "hessian/", "sensitivity/", "gradient/", "frequency/", "fisher/"
CHECKPOINT = "checkpoint_sha256"
POSITIVE = ("sensitivity", "frequency", "Fisher moment")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """By tensor name: hessians, gradients float (columns, columns), sensitivities, frequencies float (rows,), fishers.

    batch_tokens: over how many tokens a Hessian, a gradient, a Fisher sums; None where the file does not tell.
    """

    hessians: dict[str, np.ndarray]
    sensitivities: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    frequencies: dict[str, np.ndarray] = field(default_factory=dict)
    fishers: dict[str, np.ndarray] = field(default_factory=dict)
    batch_tokens: float | None

    def terms(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """(rows float64 (rows,), moments float64 (columns, columns)): to second order an error E of the tensor adds
        1/2 sum_r rows[r] E_r moments E_r^T nats to the loss of a token, for each pair; empty where none is known.

        With inputs and gradients of a layer taken as independent (K-FAC; trainer/calibration.py).
        """
        if not self.batch_tokens:
            return []
        return [
            (rows[name].astype(np.float64), moments[name] / np.float64(self.batch_tokens))
            for moments, rows in ((self.hessians, self.sensitivities), (self.gradients, self.frequencies))
            if name in moments and name in rows
        ]

    def fisher(self, name: str) -> np.ndarray | None:
        """float64, as the tensor: an error E adds 1/2 sum fisher E^2 nats to the loss of a token."""
        if not self.batch_tokens or name not in self.fishers:
            return None
        return self.fishers[name] / np.float64(self.batch_tokens)


def read_layers(
    path: str | Path,
    checkpoint: str | Path,
    tensors: Mapping[str, np.ndarray],
    digest: Callable[[str | Path], str] | None = None,
) -> Layers:
    """What a calibration file holds.  checkpoint: the file that `tensors` are of.  digest: its; default `sha256`.

    Raises: InputError when it is no calibration file, one of another checkpoint, or what it holds does not fit its
    tensor.
    """
    arrays, notes = read_checkpoint(path)
    hessians, sensitivities, gradients, frequencies, fishers = (
        {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
        for kind in (HESSIAN, SENSITIVITY, GRADIENT, FREQUENCY, FISHER)
    )
    calibrated, again = notes.get(CHECKPOINT), f"run `pgolf calibrate {checkpoint}`"
    if not hessians or not isinstance(calibrated, str):
        raise InputError("is not a calibration file", where=str(path), hint="make one with `pgolf calibrate`")
    found = (digest or sha256)(checkpoint)
    if calibrated != found:
        raise InputError(
            f"was made from a checkpoint of sha256 {calibrated:.12}, {checkpoint} has {found:.12}",
            where=str(path),
            hint=again,
        )

    for what, moments in (
        ("Hessian", hessians),
        ("gradient moment", gradients),
        ("sensitivity", sensitivities),
        ("frequency", frequencies),
        ("Fisher moment", fishers),
    ):
        for name, array in moments.items():
            reason = ""
            if name not in tensors:
                reason = f"is {array.dtype} {array.shape}, the tensor is missing"
            elif array.dtype.kind != "f" or array.shape != _shape(what, tensors[name].shape):
                reason = f"is {array.dtype} {array.shape}, the tensor is {tensors[name].shape}"
            elif not np.isfinite(array).all():
                reason = "holds values that are not finite"
            elif what in POSITIVE and (array < 0).any():
                reason = "holds values below 0"
            if reason:
                raise InputError(f"the {what} of `{name}` {reason}", where=str(path), hint=again)
    return Layers(
        hessians=hessians,
        sensitivities=sensitivities,
        gradients=gradients,
        frequencies=frequencies,
        fishers=fishers,
        batch_tokens=_batch_tokens(notes),
    )


def _shape(what: str, tensor: tuple[int, ...]) -> tuple[int, ...]:
    """Of what is known of a tensor of this shape; one that nothing has where the tensor is no matrix but should be."""
    if what == "Fisher moment":
        return tensor
    if what in POSITIVE:
        return tensor[:1]
    return tensor[1:] * 2 if len(tensor) == 2 else (-1,)


def _batch_tokens(notes: Mapping[str, object]) -> float | None:
    tokens, sequences, batch = (notes.get(key) for key in ("tokens", "sequences", "batch"))
    if not (isinstance(tokens, int) and isinstance(sequences, int) and isinstance(batch, int)):
        return None
    return tokens / math.ceil(sequences / batch) if min(tokens, sequences, batch) > 0 else None


def sha256(path: str | Path) -> str:
    """Of the file's content, in hexadecimal."""
    return hashlib.sha256(read_bytes(path)).hexdigest()
