"""A submission folder as it lies on disk, with its artifact decoded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codec.decoder import decode, read_meta
from codec.errors import CodecError, InputError
from codec.files import read_bytes
from verify.code_bytes import MAIN, import_closure

ARTIFACT = "model.bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """artifact: path of the weights.  tensors: what they decode to.  meta: what is stored beside them.

    code: train_gpt.py and the local modules it imports.  claims: submission.json ({} when there is none).
    """

    folder: Path
    artifact: Path
    blob: bytes
    meta: dict[str, Any]
    tensors: dict[str, np.ndarray]
    code: tuple[Path, ...]
    claims: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> "Submission":
        """Read the folder; nothing of it is executed.

        Raises: InputError when files are missing or unreadable; CodecError when the artifact is damaged.
        """
        folder = Path(folder)
        if not (folder / MAIN).is_file():
            raise InputError(
                f"is not a submission folder, it has no {MAIN}", where=str(folder), hint="make one with `pgolf pack`"
            )
        claims = _claims(folder / "submission.json")
        artifact = folder / _artifact_name(claims, folder)
        blob = read_bytes(artifact)
        try:
            meta, tensors = read_meta(blob), decode(blob)
        except CodecError as error:
            raise CodecError(error.message, where=error.where or str(artifact), hint=error.hint) from None
        return cls(
            folder=folder,
            artifact=artifact,
            blob=blob,
            meta=meta,
            tensors=tensors,
            code=tuple(import_closure(folder)),
            claims=claims,
        )


def _claims(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        claims = json.loads(read_bytes(path))
    except ValueError as error:
        raise InputError(f"is not JSON ({error})", where=str(path), hint="write it again") from None
    if not isinstance(claims, dict):
        raise InputError("is not a JSON object", where=str(path), hint="write it again")
    return claims


def _artifact_name(claims: dict[str, Any], folder: Path) -> str:
    name = claims.get("artifact", ARTIFACT)
    if not isinstance(name, str) or Path(name).name != name:
        raise InputError(
            f"names the artifact {name!r}, need the name of a file in the folder", where=str(folder / "submission.json")
        )
    return name
