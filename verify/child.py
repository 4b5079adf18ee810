"""What runs in the fresh process: load a submission by its own script, score it, report as JSON lines.

The parent starts `python -I -c BOOT <toolkit root>` and writes one job, a JSON object, on stdin.  Reports go
to a private copy of stdout; whatever the submission prints lands on stderr.
"""

import hashlib
import json
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from codec.errors import PgolfError
from verify.scorers import score_sliding
from verify.token_bytes import TokenBytes

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from verify.child import main; main()"
TOOLKIT = ("codec", "packager", "pgolf", "trainer", "verify")
Report = Callable[[dict[str, Any]], None]


class CarriedOnly(MetaPathFinder):
    """Finds the toolkit's names in the submission's folder or not at all: a submission carries what it imports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for other names, so that the usual finders go on with them."""
        if name.partition(".")[0] not in TOOLKIT:
            return None
        places = sys.path if path is None else path
        inside = [place for place in places if Path(place).resolve().is_relative_to(self.folder)]
        spec = PathFinder.find_spec(name, inside)
        if spec is None:
            raise ModuleNotFoundError(f"No module named '{name}', the submission does not carry it", name=name)
        return spec


def main() -> None:
    """Do the job on stdin; always ends with a report of kind `score` or `error`, unless the process dies."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def report(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    job = json.loads(sys.stdin.readline())
    try:
        _run(job, report)
    except PgolfError as error:
        report({"kind": "error", "message": error.message, "hint": error.hint})
    except (Exception, SystemExit) as error:  # the submission is foreign code: anything may come out of it
        traceback.print_exc()
        report(
            {
                "kind": "error",
                "message": f"the script failed with {type(error).__name__}: {error}"[:500],
                "hint": "run it by itself: python -I train_gpt.py --eval",
            }
        )


def _run(job: dict[str, Any], report: Report) -> None:
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    tokens = np.load(job["tokens"])
    token_bytes = TokenBytes.from_tokenizer(job["tokenizer"]).of(tokens)
    os.remove(job["tokens"])  # the held-out text must not be lying there while the submission loads
    _hide_toolkit(Path(job["script"]).resolve().parent)
    model = _load(job["script"], job["artifact"], job["device"])
    report({"kind": "loaded", "state": _state(model)})
    score = score_sliding(
        lambda ids: model.logits(ids.to(job["device"])),
        tokens,
        token_bytes,
        length=job["length"],
        stride=job["stride"],
        batch=job["batch"],
        progress=lambda done, note: report({"kind": "progress", "done": done, "note": note}),
    )
    report(
        {
            "kind": "score",
            "nats": score.nats,
            "tokens": score.tokens,
            "bytes": score.bytes,
            "windows": score.windows,
            "seconds": score.seconds,
            "scorer": score.scorer,
        }
    )


def _hide_toolkit(folder: Path) -> None:
    """From here on the process looks as if the toolkit were not installed; we keep the functions we hold."""
    sys.path.pop(0)
    for name in [name for name in sys.modules if name.partition(".")[0] in TOOLKIT]:
        del sys.modules[name]
    sys.meta_path.insert(0, CarriedOnly(folder))


def _load(script: str, artifact: str, device: str) -> Any:
    load = runpy.run_path(script, run_name="pgolf_submission").get("load")
    if not callable(load):
        raise PgolfError("the script offers no `load(artifact_path, device)`", hint="add one that returns the model")
    model = load(artifact, device)
    if not callable(getattr(model, "logits", None)):
        raise PgolfError(
            f"`load` returned a {type(model).__name__} without `.logits(ids)`", hint="return a module that has it"
        )
    return model


def _state(model: Any) -> dict[str, Any]:
    """Per tensor of the loaded module: dtype, shape, sha256 of its bytes."""
    if not isinstance(model, torch.nn.Module):
        return {}
    return {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "sha256": hashlib.sha256(_bytes(tensor)).hexdigest(),
        }
        for name, tensor in model.state_dict().items()
    }


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
