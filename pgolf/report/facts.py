"""What a report shows, gathered once and never changed: its pictures, tables and JSON all read this."""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from verify.claims.significance import Comparison
    from verify.finding import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something a report could show and does not.  how: what would give it, an option most often."""

    what: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often each level is used, over all tensors of a role.  counts[i]: of the levels first + i * width and on.

    below, above: weights with levels outside, lowest and highest those levels' ends.
    tensors: how many there are.  entropy_bits: order 0, of a level, before levels were put together in bars.
    """

    role: str
    tensors: int
    first: int
    width: int
    counts: tuple[int, ...]
    below: int
    above: int
    lowest: int
    highest: int
    entropy_bits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """One tensor of an artifact: bytes as exact code lengths, distortion against the checkpoint where one is given.

    layer: the number in its name, None outside of the layers.  scale_bytes: with column steps.
    snr_db: None without a checkpoint, or where nothing was lost.  predicted_nats, measured_nats: that its rounding adds
    to the loss of a token, by the calibration's second order, and by scoring the float model with this tensor alone
    rounded.
    """

    name: str
    role: str
    layer: int | None
    stored_as: str
    quantized: bool
    weights: int
    level_bytes: float
    plain_bytes: float
    scale_bytes: float
    class_bytes: float
    entropy_bits_per_weight: float | None
    snr_db: float | None = None
    predicted_nats: float | None = None
    measured_nats: float | None = None

    @property
    def bytes(self) -> float:
        return self.level_bytes + self.plain_bytes + self.scale_bytes + self.class_bytes

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.weights if self.weights else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFacts:
    """sum(tensor.bytes) + table_bytes + header_bytes + lane_bytes = bytes.  snr_db: of all energy, None if unknown.

    loss_targets: of how many targets the measured losses are, 0 where none was measured.
    """

    name: str
    bytes: int
    weights: int
    tensors: tuple[TensorFacts, ...]
    table_bytes: int
    header_bytes: float
    lane_bytes: float
    snr_db: float | None
    histograms: tuple[Histogram, ...]
    loss_targets: int = 0

    @property
    def bits_per_weight(self) -> float:
        """Everything included."""
        return 8 * self.bytes / max(self.weights, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFacts:
    """Counted code of a submission.  bytes: as it lies on disk.  modules: (name, bytes of its source), unpacked."""

    bytes: int
    modules: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Some targets of the text, from `first` on.  text: how it begins."""

    first: int
    targets: int
    bytes: int
    nats: float
    bpb: float
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts:
    """Where along the held-out text a model is good or bad.  bins: all of it, in order; the others worst first.

    documents: how many there are.  partial: whether only the first targets were scored.
    """

    scorer: str
    targets: int
    bytes: int
    bpb: float
    partial: bool
    documents: int
    bins: tuple[Stretch, ...]
    worst_documents: tuple[Stretch, ...]
    worst_snippets: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One line of a log.  seconds: of training until then, None where the line does not say."""

    step: int
    seconds: float | None
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Something a log times.  kind: training and evaluation have a limit each, what else there is has none."""

    name: str
    seconds: float
    kind: Literal["train", "eval", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One seed.  training: losses in nats per token; validation: bits per byte, on the way and at the end of training.

    phases: training first, then what follows it, in the order of the log.
    """

    name: str
    seed: int | None
    label: str
    bpb: float
    loss: float | None
    total_bytes: int | None
    train_seconds: float | None
    eval_seconds: float | None
    training: tuple[CurvePoint, ...] = ()
    validation: tuple[CurvePoint, ...] = ()
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFacts:
    """The runs of one recipe.  bound: below it the true mean lies with 99 %, by Student's t; None below two seeds."""

    name: str
    runs: tuple[RunFacts, ...]
    mean: float
    sd: float | None
    bound: float | None
    comparison: "Comparison | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One thing that a report is about, with whatever of it is known.

    verdict: "" where nothing was judged.  total_bytes: what is held against the cap, None when unknown.
    float_bpb: of the checkpoint, by the submission's own script, on the text.
    """

    name: str
    kind: Literal["checkpoint", "artifact", "submission", "runs"]
    cap: int
    total_bytes: int | None
    artifact: ArtifactFacts | None = None
    code: CodeFacts | None = None
    text: TextFacts | None = None
    float_bpb: float | None = None
    seeds: SeedFacts | None = None
    findings: "tuple[Finding, ...]" = ()
    verdict: str = ""
    notes: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything on one page."""

    title: str
    subjects: tuple[Subject, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)
