"""A packed script's own loader, tried on the artifact it was packed with, before either is handed out."""

import linecache
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from codec.decoder import QuantizedTensor
from codec.errors import InputError
from packager.script.bundle import OURS

Tensor = QuantizedTensor | np.ndarray
NAME = "pgolf_trial"  # not __main__: what the script does when it is started must not begin


def trial_load(script: bytes, artifact: bytes, packed: Mapping[str, Tensor], file: str) -> None:
    """Run a packed reference script as a module and let its `load` read the artifact, in this process.

    What is loaded must be, name by name and bit by bit, what was packed; the artifact is decoded by the script alone.
    The script sees the modules that it carries, never those of the toolkit around it; a script of others is not run
    here.  A process of its own would import torch again: 1.4 s of computing for every pack, against half a second.

    packed: the tensors that the artifact was encoded from.  file: the script's name, for messages.
    Raises: InputError when the script cannot load it, or loads something else.
    """
    with tempfile.TemporaryDirectory() as folder, _without_toolkit():
        path, blob = Path(folder, file), Path(folder, "model.bin")
        path.write_bytes(script)
        blob.write_bytes(artifact)
        module = sys.modules[NAME] = ModuleType(NAME)
        module.__file__ = str(path)
        try:
            exec(compile(script, str(path), "exec"), module.__dict__)
            loaded = module.load(str(blob)).state_dict()
        except Exception as error:  # the classes of its errors are its own copies
            raise InputError(
                f"cannot load the artifact that was packed with it ({getattr(error, 'message', error)!s:.300})",
                where=file,
                hint="checkpoint and model config do not fit: give the right one with --config, --preset or --set",
            ) from None
        finally:
            for each in [each for each in linecache.cache if each.startswith(str(path))]:
                del linecache.cache[each]
    _compare(packed, loaded, file)


def _compare(packed: Mapping[str, Tensor], loaded: dict[str, Any], file: str) -> None:
    for name in sorted(packed.keys() | loaded.keys()):
        have = loaded[name].numpy() if name in loaded else None
        need = packed.get(name)
        floats = need.dequantize() if isinstance(need, QuantizedTensor) else need
        if have is None or floats is None or not np.array_equal(have, floats.astype(have.dtype)):
            raise InputError(f"loads another `{name}` than the artifact holds", where=file)


@contextmanager
def _without_toolkit() -> Iterator[None]:
    """The toolkit's packages are not imported yet, as in a process that has only the submission.

    Whatever happens inside, afterwards every module of theirs is the one it was, the script's copies are gone, and what
    it hung into the import system as well.
    """
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in OURS}
    finders = [*sys.meta_path]
    for name in kept:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in (*OURS, NAME)]:
            del sys.modules[name]
        sys.modules.update(kept)
        sys.meta_path[:] = finders
