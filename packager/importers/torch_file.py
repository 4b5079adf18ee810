"""torch.save files read without running anything in them: plain values, and tensors as numpy arrays."""

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from codec.errors import EnvironmentLacks, InputError
from codec.storage.decompress import ZIP

HINT = "save the state dict alone: torch.save(model.state_dict(), path)"


def load_pickle(data: bytes, limit: int) -> Any:
    """The saved object, tensors still torch's; only what torch calls weights is ever built (weights_only).

    Raises: InputError for a damaged file, one that claims more than `limit` bytes, or one whose pickle asks for
    anything but tensors and plain values; EnvironmentLacks without torch.
    """
    torch = _torch()
    if data.startswith(ZIP):
        _check_zip(data, limit)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile pickle makes torch fail in every way Python knows
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"asks for `{asked[1]}`" if asked else f"cannot be read ({type(error).__name__})"
        raise InputError(f"holds a pickle that {reason}; only tensors and plain values are read", hint=HINT) from None


def arrays(tensors: Mapping[Any, Any], limit: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """(the tensors as arrays by name, names of what is no tensor).  bfloat16 and narrower floats become float32.

    Raises: InputError for names that are not text, tensors without plain values, and views that would unfold to
    more than `limit` bytes.
    """
    torch = _torch()
    found = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    for name in tensors:
        if not isinstance(name, str):
            raise InputError(f"has an entry named {name!r:.80}, names must be text", hint=HINT)
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            raise InputError(f"is a {tensor.type()}, not an array of real numbers", where=f"tensor `{name}`", hint=HINT)
    # A stored byte can be repeated without end by a stride of 0, so what was read bounds nothing.
    size = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
    if size > limit:
        raise InputError(f"holds tensors of {size:,} bytes, more than {limit:,}", hint="read_any takes a larger limit")
    return {name: _array(tensor) for name, tensor in found.items()}, [name for name in tensors if name not in found]


def _array(tensor: Any) -> np.ndarray:
    plain = tensor.detach().resolve_conj().resolve_neg()
    known = not plain.is_floating_point() or str(plain.dtype) in ("torch.float16", "torch.float32", "torch.float64")
    array: np.ndarray = np.asarray((plain if known else plain.float()).numpy(), order="C")
    return array


def _check_zip(data: bytes, limit: int) -> None:
    """Sizes before anything is unpacked, then checksums: torch compares none of them."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            claimed = sum(record.file_size for record in archive.infolist())
            if claimed > max(limit, len(data)):
                raise InputError(f"claims to hold {claimed:,} bytes, more than {limit:,}", hint="the file is damaged")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"is a damaged torch.save file ({error})", hint="copy the file again") from None
    if damaged:
        raise InputError(
            f"is a damaged torch.save file (`{damaged}` does not match its checksum)", hint="copy the file again"
        )


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise EnvironmentLacks("reading torch.save's files takes the package torch", hint="pip install torch") from None
    return torch
