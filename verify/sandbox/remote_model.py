"""A submission's model that runs in another process: asked for logits, trusted with nothing else."""

from copy import copy
from typing import IO, Any

import numpy as np
import torch

from codec.errors import CodecError, EnvironmentLacks, InputError, LimitError, PgolfError, UsageError, printable
from verify.reveal.stretches import OwnStatement
from verify.sandbox import wire

MAX_LENGTH = 1 << 20  # tokens of a window; the logits of a longer one would not be read for any real vocabulary
MAX_LOGITS = 1 << 31  # bytes of one answer: 32 whole windows of 2,048 tokens over 8,192 ids
KINDS = {kind.__name__: kind for kind in (CodecError, EnvironmentLacks, InputError, LimitError, UsageError)}


class Remote:
    """`.logits(ids)`, and `.hidden` with `.head` so that only the positions to be scored travel.

    What the process says about itself, and nobody should rely on: state, per tensor of the loaded module its dtype,
    shape and sha256; length, the window length that the script states, or None; notes, how it was loaded; missing,
    what the sandbox could not enforce; attempts, what it refused, up to the last answer; lacks, adaptive scorer -> why
    the model cannot be scored by it; statement, how it adapts by itself, None as long as it did not say so.  where: the
    script, for messages.

    Raises (all methods): InputError when the script fails or answers anything else, with `where`; LimitError and
    EnvironmentLacks when the process says so; EOFError, BrokenPipeError when it is gone.
    """

    def __init__(self, requests: IO[bytes], answers: IO[bytes], where: str) -> None:
        self._requests, self._answers, self.where = requests, answers, where
        self._words: dict[str, Any] = {}
        self._ids = torch.empty(0, 0, dtype=torch.int64)
        self.attempts: list[str] = []
        confined, _ = self._answer()  # sent before the script runs, so this much it cannot make up
        self._checked(isinstance(confined.get("missing"), list), confined, "its sandbox")
        self.missing = _sentences(confined["missing"])
        loaded, _ = self._answer()
        self.state = self._checked(_is_state(loaded.get("state")), loaded.get("state"))
        length = loaded.get("length")
        bounded = length is None or (isinstance(length, int) and 0 < length <= MAX_LENGTH)
        what = f"the tokens of its windows, of which there are 1 to {MAX_LENGTH:,}"
        self.length: int | None = self._checked(bounded, length, what)
        self.notes = _sentences(loaded.get("notes"))
        lacks = loaded.get("lacks", {})
        self._checked(isinstance(lacks, dict), lacks)
        self.lacks = {str(scorer): printable(why, 300) for scorer, why in lacks.items()}
        self.statement = OwnStatement.read(loaded["adaptation"]) if "adaptation" in loaded else None

    @property
    def adapts(self) -> bool:
        """Whether it offers `reveal`."""
        return "own" not in self.lacks

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 (B, T) -> float32 (B, T, V) on the CPU."""
        return self._logits(ids, 0)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Positions 0 .. T - 1, int64 (B, T, 1), for `head`: the hidden states themselves stay in the process."""
        self._ids = ids
        return torch.arange(ids.shape[1]).expand(len(ids), -1)[..., None]

    def head(self, positions: torch.Tensor) -> torch.Tensor:
        """The last positions that `hidden` gave, int64 (B, t, 1) -> their logits, float32 (B, t, V)."""
        return self._logits(self._ids, int(positions[0, 0, 0]))

    def asked(self, **words: Any) -> "Remote":
        """The same model, with these words in every request for logits; see `model_server`."""
        other = copy(self)
        other._words = words
        return other

    def tell(self, kind: str, ids: torch.Tensor | None = None, **words: Any) -> dict[str, Any]:
        """Send another request, wait until it is done.  ids: int64, any shape."""
        wire.send(self._requests, {"kind": kind, **words}, None if ids is None else ids.cpu().numpy())
        return self._answer()[0]

    def begin(self, targets: int) -> OwnStatement:
        """Start a run of its own adaptation over so many targets, as the artifact is; how it will be made.

        Raises: InputError, besides, for what is no statement.
        """
        self.statement = OwnStatement.read(self.tell("begin", targets=targets).get("adaptation"))
        return self.statement

    def refresh(self) -> None:
        """Ask for the attempts up to now."""
        self.tell("attempts")

    def _logits(self, ids: torch.Tensor, first: int) -> torch.Tensor:
        batch, length = ids.shape
        wire.send(self._requests, {"kind": "logits", "first": first, **self._words}, ids.cpu().numpy())
        _, logits = self._answer("float32", MAX_LOGITS)
        shape = None if logits is None else logits.shape
        if logits is None or logits.ndim != 3 or logits.shape[:2] != (batch, length - first):
            raise self._failed(
                InputError(
                    f"logits have shape {shape} for the last {length - first} of {batch} x {length} inputs",
                    hint="the model needs one logit per vocabulary id and position",
                )
            )
        return torch.from_numpy(logits)

    def _answer(self, dtype: str = "", limit: int = 0) -> tuple[dict[str, Any], np.ndarray | None]:
        try:
            message, array = wire.receive(self._answers, dtype, limit)
        except InputError as error:
            raise self._failed(error) from None
        if "attempts" in message:
            self.attempts = _sentences(message["attempts"])
        if message.get("kind") == "error":
            kind = KINDS.get(str(message.get("class")), InputError)
            raise self._failed(kind(printable(message.get("message"), 1000), hint=printable(message.get("hint"), 200)))
        return message, array

    def _checked(self, fine: bool, value: Any, what: str = "its model") -> Any:
        if not fine:
            raise self._failed(InputError(f"the script's process says {printable(value, 100)} about {what}"))
        return value

    def _failed(self, error: PgolfError) -> PgolfError:
        if self.attempts:
            error.message += f"; the sandbox refused: {'; '.join(self.attempts)[:500]}"
        error.where = self.where
        return error


def _sentences(value: Any) -> list[str]:
    return [printable(each, 300) for each in value[:20]] if isinstance(value, list) else []


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("dtype"), str)
        and isinstance(entry.get("shape"), list)
        and isinstance(entry.get("sha256"), str)
        for entry in value.values()
    )
