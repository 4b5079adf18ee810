"""The text log of a run, in the grammar that the field's logs share: labels, then `key:value` pairs."""

import json
import os
from pathlib import Path
from typing import Any


class TrainLog:
    """Appends whole lines, each on disk before the next step; a resumed run first cuts what came after its state."""

    def __init__(self, path: str | Path, *, keep_bytes: int = 0) -> None:
        Path(path).touch()
        os.truncate(path, min(keep_bytes, os.path.getsize(path)))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def line(self, text: str) -> None:
        """Add one line."""
        self._file.write(text + "\n")
        self._file.flush()

    @property
    def bytes(self) -> int:
        """Length of the log so far."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def opening(self, config: dict[str, Any], *, source_sha256: str, seed: int, tokens: int, parameters: int) -> None:
        """What the run is: enough to tell whether two logs are of the same recipe."""
        self.line(json.dumps(config, sort_keys=True))
        self.line(f"source sha256:{source_sha256}")
        self.line(f"seed:{seed}")
        self.line(f"train_tokens:{tokens} model_params:{parameters}")

    def trained(self, step: int, steps: int, loss: float, seconds: float) -> None:
        """Loss of one step, and the training time so far."""
        self.line(f"step:{step}/{steps} train_loss:{loss:.4f} {_clock(step, seconds)}")

    def validated(self, step: int, steps: int, loss: float, bpb: float, seconds: float) -> None:
        """A validation after that step; its own time is not training time."""
        self.line(f"step:{step}/{steps} val_loss:{loss:.8f} val_bpb:{bpb:.8f} {_clock(step, seconds)}")

    def stopped_early(self, step: int, steps: int, seconds: float) -> None:
        """The wall-clock cap came before the last step."""
        self.line(f"stopping_early: wallclock_cap train_time:{seconds * 1000:.0f}ms step:{step}/{steps}")


def _clock(step: int, seconds: float) -> str:
    return f"train_time:{seconds * 1000:.0f}ms step_avg:{seconds * 1000 / max(step, 1):.2f}ms"
