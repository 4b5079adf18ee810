"""The text log of a run, in the grammar that the field's logs share: labels, then `key:value` pairs."""

import os
from collections.abc import Mapping
from pathlib import Path

PHASES, CALIBRATE = "phase_times", "calibrate"


class Lines:
    """A file of whole lines, each on disk before the next step; a resumed run first cuts what came after its state.

    echo: print them as well.
    """

    def __init__(self, path: str | Path, *, keep_bytes: int = 0, echo: bool = False) -> None:
        self._echo = echo
        Path(path).touch()
        os.truncate(path, min(keep_bytes, os.path.getsize(path)))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def add(self, text: str) -> None:
        """Append one line."""
        self._file.write(text + "\n")
        self._file.flush()
        if self._echo:
            print(text, flush=True)

    @property
    def bytes(self) -> int:
        """Length of the file so far."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Release the file."""
        self._file.close()


class TrainLog(Lines):
    """What a run says about itself, for people and for `verify.claims.log_reader`."""

    def __init__(self, path: str | Path, *, keep_bytes: int = 0, echo: bool = False) -> None:
        # `pgolf calibrate` may have added its time to the log of a finished run: it counts, whoever resumes that run.
        cut = Path(path).read_bytes()[keep_bytes:].decode(errors="replace") if Path(path).exists() else ""
        super().__init__(path, keep_bytes=keep_bytes, echo=echo)
        for line in cut.splitlines():
            if line.startswith(f"{PHASES} {CALIBRATE}:"):
                self.add(line)

    def pairs(self, **values: object) -> None:
        """One line of `key:value` pairs; values hold no spaces."""
        self.add(_pairs(values))

    def trained(self, step: int, steps: int, loss: float, seconds: float) -> None:
        """Loss of one step, and the training time so far."""
        self.add(f"step:{step}/{steps} train_loss:{loss:.4f} {_clock(step, seconds)}")

    def validated(self, step: int, steps: int, loss: float, bpb: float, seconds: float) -> None:
        """A validation after that step; its own time is not training time."""
        self.add(f"step:{step}/{steps} val_loss:{loss:.8f} val_bpb:{bpb:.8f} {_clock(step, seconds)}")

    def stopped_early(self, step: int, steps: int, seconds: float) -> None:
        """The wall-clock cap came before the last step."""
        self.add(f"stopping_early: wallclock_cap train_time:{seconds * 1000:.0f}ms step:{step}/{steps}")

    def phases(self, seconds: Mapping[str, float]) -> None:
        """Where the time went."""
        self.add(f"{PHASES} " + _pairs({name: f"{spent * 1000:.0f}ms" for name, spent in seconds.items()}))


def _pairs(values: Mapping[str, object]) -> str:
    return " ".join(f"{name}:{value}" for name, value in values.items())


def _clock(step: int, seconds: float) -> str:
    return f"train_time:{seconds * 1000:.0f}ms step_avg:{seconds * 1000 / max(step, 1):.2f}ms"
