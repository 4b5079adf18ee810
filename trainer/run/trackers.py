"""Where a run's numbers go besides its log: always metrics.jsonl, and the experiment trackers that the user names."""

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from codec.errors import EnvironmentLacks, UsageError
from trainer.run.text_log import Lines

PROJECT = "parameter-golf-kit"


class Tracker(Protocol):
    """Takes numbers by step until it is closed."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, e.g. {"train_loss": 3.1, "lr": 0.5}; steps never decrease."""

    def close(self) -> None:
        """Nothing follows."""


class JsonLines(Lines):
    """One JSON object per recorded step, the step first."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        self.add(json.dumps({"step": step, **values}))


class TensorBoard:
    """Scalars in `tensorboard/` inside the run's folder; a resumed run hides what came after its step."""

    def __init__(self, module: ModuleType, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._writer.add_text("config", json.dumps(config, indent=2, sort_keys=True), step)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Hosted:
    """wandb, or trackio, which offers the same three functions; the run is named after its folder.

    What they print goes to stderr: on stdout it would spoil `--json`.
    """

    def __init__(self, module: ModuleType, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._module = module
        with redirect_stdout(sys.stderr):
            module.init(project=PROJECT, name=folder.resolve().name, config={**config, "first_step": step})

    def record(self, step: int, values: Mapping[str, float]) -> None:
        self._module.log(dict(values), step=step)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self._module.finish()


Build = Callable[[ModuleType, Path, Mapping[str, Any], int], Tracker]  # (its package, then as Opener)
TRACKERS: dict[str, tuple[str, Build]] = {
    "tensorboard": ("torch.utils.tensorboard", TensorBoard),
    "wandb": ("wandb", Hosted),
    "trackio": ("trackio", Hosted),
}
Opener = Callable[[Path, Mapping[str, Any], int], Tracker]  # (run's folder, config, steps done before)


def find_tracker(name: str) -> Opener:
    """The tracker of that name, not yet opened, so that a missing package shows before anything is written.

    Raises: UsageError for an unknown name; EnvironmentLacks when its package is not installed.
    """
    if name not in TRACKERS:
        raise UsageError(f"there is no tracker `{name}`", hint=f"trackers: {', '.join(TRACKERS)}")
    path, tracker = TRACKERS[name]
    try:
        module = import_module(path)
    except ImportError:
        raise EnvironmentLacks(
            f"tracker {name} needs the package {name}, which is not installed", hint=f"pip install {name}"
        ) from None
    return lambda folder, config, step: tracker(module, folder, config, step)
