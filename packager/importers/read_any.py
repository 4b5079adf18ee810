"""What people have: checkpoints of safetensors or torch.save, and the challenge's quantized files."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codec.errors import InputError, PgolfError
from codec.storage.atomic_files import read_bytes, within
from codec.storage.checkpoint import read_checkpoint
from codec.storage.decompress import expand
from packager.importers.challenge_formats import read_int8_clean, read_labelled
from packager.importers.imported import FORMS, STORED, Imported, check_finite, listed
from packager.importers.llama2c import Sizes, read_sizes, read_weights
from packager.importers.nests import find_state
from packager.importers.ternary import is_ternary, read_ternary
from packager.importers.torch_file import arrays, load_pickle
from packager.importers.wrapped_names import unwrapped_names

LIMIT = 1 << 30  # bytes; a full-size float32 checkpoint has 140 million, an expanded submission 40 million


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
        with within(path):
            return _unwrapped(Imported(tensors=tensors, stored=None, metadata=metadata, kind="safetensors"))
    try:
        if (sizes := read_sizes(data)) is not None:
            return _llama2c(data, sizes)
        inner, layers = expand(data, limit)
        imported = _unwrapped(_recognised(load_pickle(inner, limit), max(limit, len(data))))
    except PgolfError as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise
    return dataclasses.replace(imported, kind=" in ".join([imported.kind, *reversed(layers)]))


def _recognised(content: Any, limit: int) -> Imported:
    if not isinstance(content, Mapping):
        raise InputError(f"holds a {type(content).__name__}, not a state dict", hint=FORMS)
    if "__quant_format__" in content:
        return read_int8_clean(content, limit)
    if isinstance(content.get("w"), Mapping) and isinstance(content.get("m"), Mapping):
        return read_labelled(content, limit)
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
    check_finite(found.tensors)
    notes = [f"levels of recipe `{STORED}` are of rotated weights, a row per group of them: they can only be measured"]
    if found.repeated:
        notes.append(f"padding repeats other levels, which recipe `{STORED}` holds once: {listed(found.repeated)}")
    return Imported(
        tensors=found.tensors, stored=found.stored, metadata={}, kind="ternary", notes=tuple(notes), decodes=False
    )


def _state_dict(content: Mapping[Any, Any], limit: int) -> Imported:
    if packed := _packed(content):
        raise InputError(f"holds no tensors but packed entries of types that are not supported ({packed})", hint=FORMS)
    nest = find_state(content)
    tensors, plain = arrays(nest.state, limit)
    if not tensors:
        raise InputError("holds no tensors", hint=FORMS)
    ignored = [*nest.others, *plain]
    notes = [f"ignored what is not a tensor: {listed(ignored)}"] if ignored else []
    if nest.models:
        notes.append(f"the weights are those of `{nest.key}`; left out, tensors too: {listed([*nest.models])}")
    return Imported(tensors=tensors, stored=None, metadata=dict(nest.config), kind="state dict", notes=tuple(notes))


def _unwrapped(imported: Imported) -> Imported:
    """Under the names that the model itself gives its tensors."""
    names, note = unwrapped_names(imported.tensors)
    if not note:
        return imported
    return dataclasses.replace(
        imported,
        tensors={own: imported.tensors[name] for name, own in names.items()},
        stored=imported.stored and {own: imported.stored[name] for name, own in names.items()},
        notes=(*imported.notes, note),
    )


def _packed(content: Mapping[Any, Any]) -> str:
    """The types that the entries name, and how many of each; "" unless every entry does."""
    types = [str(each["type"]) if isinstance(each, Mapping) and "type" in each else "" for each in content.values()]
    if not types or not all(types):
        return ""
    return f"{', '.join(f'{types.count(each)} `{each:.40}`' for each in sorted(set(types))):.200}"
