"""What people have: checkpoints of safetensors or torch.save, and the challenge's quantized files."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError, PgolfError, UsageError
from codec.storage.atomic_files import read_bytes
from codec.storage.checkpoint import read_checkpoint
from codec.storage.decompress import expand
from packager.importers.llama2c import Sizes, read_sizes, read_weights
from packager.importers.ternary import is_ternary, read_ternary
from packager.importers.torch_file import arrays, load

LIMIT = 1 << 30  # bytes; a full-size float32 checkpoint has 140 million, an expanded submission 40 million
STORED = "stored"  # the recipe that keeps a file's own levels
NESTS = ("model", "state_dict", "model_state_dict")
PREFIXES = ("_orig_mod.", "module.")  # torch.compile and DistributedDataParallel put them before every name
INT8_CLEAN = "int8_clean_per_row_v1"
FORMS = "known: a state dict, int8_clean_per_row_v1, {'w': levels and scales, 'm': labels}, and rotated ternary levels"


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """A file's tensors.  tensors: as the original loads them; those of a quantized file dequantized, float32.

    stored: levels and scales exactly as the file has them, plain arrays in their own dtype; None for floats.
    decodes: whether levels times scales are the weights; not so where the file's levels are of rotated weights.
    kind: the format.  notes: one sentence each on what differs or was left out.
    """

    tensors: dict[str, np.ndarray]
    stored: dict[str, QuantizedTensor | np.ndarray] | None
    metadata: dict[str, Any]
    kind: str
    notes: tuple[str, ...] = ()
    decodes: bool = True

    def levels(self) -> dict[str, QuantizedTensor | np.ndarray]:
        """`stored`, for the recipe of that name.

        Raises: UsageError for a file of floats.
        """
        if self.stored is None:
            raise UsageError(
                f"recipe `{STORED}` keeps a file's own levels, but this is a float checkpoint ({self.kind})",
                hint="choose another recipe, such as pr162",
            )
        return self.stored

    def decodable_levels(self) -> dict[str, QuantizedTensor | np.ndarray]:
        """`levels`, to put into a submission: decoding them gives the weights.

        Raises: UsageError for a file of floats, or of levels in another basis.
        """
        if not self.decodes:
            raise UsageError(
                f"recipe `{STORED}` cannot be packed: this file's levels are of rotated weights ({self.kind})",
                hint="`pgolf measure` takes them; to pack, quantize its weights anew with another recipe",
            )
        return self.levels()


def read_any(path: str | Path, *, limit: int = LIMIT) -> Imported:
    """Read a checkpoint by its content, whatever its name: safetensors, torch.save's, llama2.c's, the challenge's.

    Nothing in the file is run.

    limit: bytes that anything compressed, nested or repeated in the file may expand to.

    Raises: InputError for a file that is damaged, hostile or of an unknown format; EnvironmentLacks when torch or
    brotli is needed and missing.
    """
    data = read_bytes(path)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 1 << 32:  # a safetensors header is JSON
        del data
        tensors, metadata = read_checkpoint(path)
        return Imported(tensors=tensors, stored=None, metadata=metadata, kind="safetensors")
    try:
        if (sizes := read_sizes(data)) is not None:
            return _llama2c(data, sizes)
        inner, layers = expand(data, limit)
        imported = _recognised(load(inner, limit), max(limit, len(data)))
    except PgolfError as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise
    return dataclasses.replace(imported, kind=" in ".join([imported.kind, *reversed(layers)]))


def _recognised(content: Any, limit: int) -> Imported:
    if not isinstance(content, Mapping):
        raise InputError(f"holds a {type(content).__name__}, not a state dict", hint=FORMS)
    if "__quant_format__" in content:
        return _int8_clean(content, limit)
    if isinstance(content.get("w"), Mapping) and isinstance(content.get("m"), Mapping):
        return _labelled(content, limit)
    if is_ternary(content):
        return _ternary(content, limit)
    return _state_dict(content, limit)


def _llama2c(data: bytes, sizes: Sizes) -> Imported:
    tensors, rotary = read_weights(data, sizes)
    tied = ["the output matrix is the embedding (tied)"] if sizes.vocab_size > 0 else []
    return Imported(
        tensors=tensors,
        stored=None,
        metadata={"sizes": {**sizes._asdict(), "vocab_size": abs(sizes.vocab_size)}},
        kind="llama2.c",
        notes=(f"left out {rotary:,} values of rotary tables, which follow from the sizes", *tied),
    )


def _ternary(content: Mapping[Any, Any], limit: int) -> Imported:
    found = read_ternary(content, limit)
    _check_finite(found.tensors)
    notes = [f"levels of recipe `{STORED}` are of rotated weights, a row per group of them: they can only be measured"]
    if found.repeated:
        notes.append(f"padding repeats other levels, which recipe `{STORED}` holds once: {_listed(found.repeated)}")
    return Imported(
        tensors=found.tensors, stored=found.stored, metadata={}, kind="ternary", notes=tuple(notes), decodes=False
    )


def _state_dict(content: Mapping[Any, Any], limit: int) -> Imported:
    inner = next((content[key] for key in NESTS if isinstance(content.get(key), Mapping)), None)
    others = [] if inner is None else [str(key) for key in content if content[key] is not inner]
    tensors, plain = arrays(content if inner is None else inner, limit)
    if not tensors:
        raise InputError(f"holds no tensors{_packed(content)}", hint=FORMS)
    for prefix in PREFIXES * 2:  # either may be inside the other
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    ignored = [*others, *plain]
    return Imported(
        tensors=tensors,
        stored=None,
        metadata={},
        kind="state dict",
        notes=(f"ignored what is not a tensor: {_listed(ignored)}",) if ignored else (),
    )


def _packed(content: Mapping[Any, Any]) -> str:
    """What a file without tensors holds instead, if its entries name their types."""
    types = [str(each["type"]) for each in content.values() if isinstance(each, Mapping) and "type" in each]
    counts = ", ".join(f"{types.count(each)} `{each:.40}`" for each in sorted(set(types)))
    return f" but packed entries of types that are not supported ({counts:.200})" if types else ""


def _int8_clean(content: Mapping[Any, Any], limit: int) -> Imported:
    """Source: openai/parameter-golf, the baseline's train_gpt.py."""
    if content["__quant_format__"] != INT8_CLEAN:
        raise InputError(f"has the unknown format `{content['__quant_format__']!s:.80}`", hint=FORMS)
    levels, scales, plain = (_only_tensors(content, key, limit) for key in ("quantized", "scales", "passthrough"))
    dtypes, qmeta = (content.get(key) or {} for key in ("dtypes", "qmeta"))
    if not isinstance(dtypes, Mapping) or not isinstance(qmeta, Mapping) or levels.keys() != scales.keys():
        raise InputError(f"{len(levels)} tensors of levels and {len(scales)} of scales do not pair", hint="damaged?")
    other = [name for name, each in qmeta.items() if each not in ({"scheme": "per_row", "axis": 0}, {})]
    if other:
        raise InputError(f"has an unknown scheme {qmeta[other[0]]!s:.80}", where=f"tensor `{other[0]}`", hint=FORMS)
    pairs = {name: (levels[name], scales[name]) for name in levels}
    return _dequantized(pairs, plain, {name: str(dtypes.get(name, "float32")) for name in levels}, INT8_CLEAN)


def _labelled(content: Mapping[Any, Any], limit: int) -> Imported:
    """Source: openai/parameter-golf pull requests 162, 339, 1176 (NAME.q, NAME.scale) and 1716 (NAME.q_pt)."""
    stored, pairs, plain = _only_tensors(content, "w", limit), {}, {}
    for name, label in content["m"].items():
        if "+" in str(label):
            raise InputError(
                f"is labelled `{label!s:.80}`, which is more than levels times a scale", where=f"tensor `{name}`"
            )
        for suffix in ("", "_pt"):
            if f"{name}.q{suffix}" in stored and f"{name}.scale{suffix}" in stored:
                pairs[name] = stored.pop(f"{name}.q{suffix}"), stored.pop(f"{name}.scale{suffix}")
                break
        else:
            if name not in stored:
                raise InputError(f"is labelled `{label!s:.80}`, but has no data", where=f"tensor `{name}`")
            plain[name] = stored.pop(name)
    if stored:
        raise InputError(f"holds tensors without a label: {_listed(list(stored))}", hint=FORMS)
    return _dequantized(pairs, plain, {}, "levels and scales")


def _only_tensors(content: Mapping[Any, Any], key: str, limit: int) -> dict[str, np.ndarray]:
    inner = content.get(key)
    if not isinstance(inner, Mapping):
        raise InputError(f"has a {type(inner).__name__} as `{key}`, not a dictionary of tensors")
    tensors, others = arrays(inner, limit)
    if others:
        raise InputError(f"has entries in `{key}` that are not tensors: {_listed(others)}")
    return tensors


def _dequantized(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]], plain: dict[str, np.ndarray], dtypes: dict[str, str], kind: str
) -> Imported:
    """pairs: (levels, scales) by name.  dtypes: what the original rounds the products to, float32 where absent."""
    if pairs.keys() & plain.keys() or not (pairs or plain):
        raise InputError("holds no tensors" if not pairs else f"holds `{min(pairs.keys() & plain.keys())}` twice")
    stored: dict[str, QuantizedTensor | np.ndarray] = dict(plain)
    tensors = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in plain.items()}
    for name, (levels, scales) in pairs.items():
        try:
            stored[name], product = _product(levels, scales)
            tensors[name] = _rounded(product, dtypes.get(name, "float32"))
        except InputError as error:
            raise InputError(error.message, where=f"tensor `{name}`", hint=error.hint) from None
    _check_finite(tensors)
    floats = [name for name in pairs if isinstance(stored[name], np.ndarray)]
    rounded = [name for name in pairs if dtypes.get(name, "float32") != "float32"]
    notes = []
    if floats:
        notes.append(f"scales that float16 does not hold, so these weights are kept as float32: {_listed(floats)}")
    if rounded:
        dtype = dtypes[rounded[0]]
        notes.append(f"recipe `{STORED}` leaves out the original's last rounding to {dtype}: {_listed(rounded)}")
    return Imported(tensors=tensors, stored=stored, metadata={}, kind=kind, notes=tuple(notes))


def _check_finite(tensors: dict[str, np.ndarray]) -> None:
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError("holds values that are not finite", where=f"tensor `{name}`")


def _product(levels: np.ndarray, scales: np.ndarray) -> tuple[QuantizedTensor | np.ndarray, np.ndarray]:
    """(levels and scales in a form that holds them exactly, else their product; the product, float32)."""
    if levels.dtype != np.int8 or scales.dtype.kind != "f":
        raise InputError(f"has {levels.dtype} levels with {scales.dtype} scales, int8 with floats are read", hint=FORMS)
    by_row = levels.ndim > 0 and scales.ndim > 0 and scales.size == scales.shape[0] == levels.shape[0]
    if not by_row and scales.size != 1:
        raise InputError(f"has scales of shape {scales.shape} for levels of shape {levels.shape}", hint=FORMS)
    flat = scales.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name later
        product = QuantizedTensor(levels, flat.astype(np.float32)).dequantize()
        for exact in (flat.astype(np.float16) if by_row else flat.astype(np.float32), flat.astype(np.float32)):
            if np.array_equal(exact, flat) and (exact.dtype == np.float16 or flat.size == 1):
                return QuantizedTensor(levels, exact), product
    return product, product


def _rounded(weights: np.ndarray, dtype: str) -> np.ndarray:
    """float32 through the named dtype and back, ties to even."""
    if dtype in ("float32", "float64"):
        return weights
    if dtype == "float16":
        return weights.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = weights.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    raise InputError(f"was of dtype `{dtype:.80}`, float16, bfloat16, float32 and float64 are read", hint=FORMS)


def _listed(names: list[Any]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"`{name!s:.80}`" for name in names[:3]) + more
