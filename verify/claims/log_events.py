"""What one line of a log can say; a Log is put together from these, whatever the format that wrote the line."""

from dataclasses import dataclass, field
from typing import Literal

ScoreKind = Literal[
    "training",
    "float",
    "roundtrip",
    "sliding",
    "ttt",
    "slot",
    "etlb",
    "mixture",
    "rescored",
    "prequant_ttt",
    "other",
    "diagnostic",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measurement.  loss: nats per token, if the line says.  decimals: digits behind the point of the printed bpb;
    loss_decimals: of the loss, None where the same are known.

    kind: what was scored and how, as far as the label tells; `diagnostic` is a measurement on the way, of a part or of
    something else.  nan and inf are numbers too.  seconds: what it took, if the log says.
    line: its number in the file, set by the reader.  notes: other pairs of the line.
    also: labels under which the very same measurement was printed again, often with fewer digits.
    """

    label: str
    kind: ScoreKind
    bpb: float
    decimals: int
    loss: float | None = None
    loss_decimals: int | None = None
    seconds: float | None = None
    line: int = 0
    notes: dict[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    def prints_as(self, other: "Metric") -> bool:
        """Whether both are the same numbers, but for the digits printed."""
        half = 0.5000001 * 10.0 ** -min(self.decimals, other.decimals)
        apart = 0.0 if self.loss is None or other.loss is None else abs(self.loss - other.loss)
        return abs(self.bpb - other.bpb) <= half and apart <= half


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Training has got so far, to `step` of `of`.  seconds: since it began.  stopped: it ended before its last step."""

    step: int | None = None
    of: int | None = None
    seconds: float | None = None
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Bytes of the `model`, the `code` or both, the `total`.

    codec: what packed them; without its name, model and total are those of the float checkpoint.
    """

    part: Literal["model", "code", "total"]
    bytes: int
    codec: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """As text.  phase: of a phase that begins here; others count only before training."""

    values: dict[str, str]
    phase: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """How many tokens of the validation text are scored."""

    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTime:
    """Of all evaluation, as the log itself adds it up."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTime:
    """What `pgolf calibrate` added to training."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHash:
    """Of the script that wrote the log."""

    sha256: str


Event = Metric | Training | Size | Hyperparameters | Targets | EvaluationTime | CalibrationTime | SourceHash
