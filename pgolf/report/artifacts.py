"""Facts of an artifact's tensors: bytes, levels, and what rounding did to the weights it was made from."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from codec.errors import InputError
from pgolf.plots import role
from pgolf.report.facts import ArtifactFacts, Histogram, TensorFacts

if TYPE_CHECKING:
    import numpy as np

    from codec.decoder import QuantizedTensor
    from codec.measurement.byte_ledger import TensorCost
    from codec.storage.calibration_file import Layers
    from trainer.model.config import GPTConfig
    from verify.scoring.heldout import HeldOut

    Tensors = Mapping[str, np.ndarray]
    Treated = Mapping[str, QuantizedTensor | np.ndarray]

BARS = 63  # of a histogram: the levels of int6 one by one
TAIL = 0.0005  # of the weights on each side that have no bar: a few outliers would leave one bar to all others
Tell = Callable[[str], None]


def artifact_facts(
    name: str, blob: bytes, tell: Tell, floats: "Tensors | None" = None, layers: "Layers | None" = None
) -> ArtifactFacts:
    """The ledger of an artifact and its levels; with its float weights also what was lost.

    floats: the checkpoint it was packed from.  layers: what `pgolf calibrate` measured of that.  tell: what is done.
    Raises: CodecError as `codec.decode`; InputError for floats of other names or shapes.
    """
    from codec.decoder import unpack
    from codec.measurement.byte_ledger import ledger
    from codec.measurement.losses import decibel, losses

    tell("bytes")
    costs = ledger(blob)
    tell("levels")
    treated = unpack(blob)[1]
    tensors = {row.name: _tensor(row) for row in costs.rows}
    ratio = None
    if floats is not None:
        _check_same(treated, floats)
        tell("distortion")
        lost = losses(floats, treated)
        noise = sum(loss.noise for loss in lost.values())
        ratio = decibel(sum(loss.signal for loss in lost.values()), noise) if noise else None
        tensors = {
            each: replace(
                facts,
                snr_db=lost[each].snr_db if each in lost and lost[each].noise else None,
                predicted_nats=_predicted(each, floats, treated, layers),
            )
            for each, facts in tensors.items()
        }
    return ArtifactFacts(
        name=name,
        bytes=costs.artifact_bytes,
        weights=costs.weights,
        tensors=tuple(tensors.values()),
        table_bytes=costs.table_bytes,
        header_bytes=costs.header_bytes,
        lane_bytes=costs.lane_bytes,
        snr_db=ratio,
        histograms=_histograms(treated, {row.name for row in costs.rows if row.quantized}),
    )


def with_measured_losses(
    facts: ArtifactFacts,
    blob: bytes,
    floats: "Tensors",
    config: "GPTConfig",
    heldout: "HeldOut",
    most: int,
    tell: Tell,
) -> ArtifactFacts:
    """With the loss that each tensor's rounding really adds, of the `most` tensors that are predicted to add most.

    The float model is scored by windows that do not overlap, then again with one tensor rounded at a time: the same
    targets, so that the difference is the rounding's.  Without predictions the largest tensors are taken.
    """
    import numpy as np
    import torch

    from codec.decoder import QuantizedTensor, unpack
    from pgolf.evaluation import sliding_evaluation
    from trainer.calibration import calibration_model

    treated = unpack(blob)[1]
    evaluate = sliding_evaluation(heldout, config.seq_len, stride=config.seq_len)

    def loss(tensors: "Tensors") -> float:
        with torch.no_grad():
            return evaluate(calibration_model(config, dict(tensors), torch.device("cpu")))[0]

    chosen = loss_order(facts)[:most]
    tied = [row.name for row in facts.tensors if row.stored_as == "tied"]
    tell("float model")
    before = loss(floats) if chosen else 0.0
    measured = {}
    for each in chosen:
        tell(each)
        now = treated[each]
        values = now.dequantize() if isinstance(now, QuantizedTensor) else now.astype("float32")
        copies = [name for name in tied if np.array_equal(floats[name], floats[each])]
        measured[each] = loss({**floats, **dict.fromkeys([each, *copies], values)}) - before
    tensors = tuple(replace(row, measured_nats=measured.get(row.name)) for row in facts.tensors)
    return replace(facts, tensors=tensors, loss_targets=heldout.targets if chosen else 0)


def loss_order(facts: ArtifactFacts) -> list[str]:
    """Tensors that lost something, those predicted to matter most first; without predictions the largest."""
    lossy = [row for row in facts.tensors if row.snr_db is not None and row.weights]
    return [row.name for row in sorted(lossy, key=lambda row: (-(row.predicted_nats or 0.0), -row.weights, row.name))]


def _tensor(row: "TensorCost") -> TensorFacts:
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", row.name)
    return TensorFacts(
        name=row.name,
        role=role(row.name),
        layer=int(found[1]) if found else None,
        stored_as=row.stored_as,
        quantized=row.quantized,
        weights=row.weights,
        level_bytes=row.payload_bytes if row.quantized else 0.0,
        plain_bytes=0.0 if row.quantized else row.payload_bytes,
        scale_bytes=row.scale_bytes + row.column_step_bytes,
        class_bytes=row.class_bytes,
        entropy_bits_per_weight=row.entropy_bits / row.weights if row.quantized and row.weights else None,
    )


def _predicted(name: str, floats: "Tensors", treated: "Treated", layers: "Layers | None") -> float | None:
    from codec.allocation.damage import added_nats

    return added_nats(name, floats[name], treated[name], layers) if layers else None


def _check_same(treated: "Treated", floats: "Tensors") -> None:
    from codec.entropy.planes import arrays_of

    packed = {name: arrays_of(tensor)[0].shape for name, tensor in treated.items()}
    given = {name: array.shape for name, array in floats.items()}
    differ = sorted(name for name in packed.keys() | given.keys() if packed.get(name) != given.get(name))
    if differ:
        raise InputError(
            f"is not what this artifact was packed from: {len(differ)} tensors differ in name or shape, "
            f"first `{differ[0]}`",
            hint="pass the checkpoint given to `pgolf pack`",
        )


def _histograms(treated: "Treated", quantized: set[str]) -> tuple[Histogram, ...]:
    """Of each role, most levels first."""
    from codec.decoder import QuantizedTensor
    from codec.entropy.planes import coded_levels

    roles: dict[str, list[np.ndarray]] = {}
    for name in sorted(quantized):
        tensor = treated[name]
        if isinstance(tensor, QuantizedTensor) and tensor.levels.size:
            roles.setdefault(role(name), []).append(coded_levels(tensor))
    found = [_histogram(name, arrays) for name, arrays in roles.items()]
    return tuple(sorted(found, key=lambda each: (-sum(each.counts), each.role)))


def _histogram(name: str, arrays: "list[np.ndarray]") -> Histogram:
    import numpy as np

    first, last = min(int(each.min()) for each in arrays), max(int(each.max()) for each in arrays)
    counts = np.zeros(last - first + 1, np.int64)
    for each in arrays:
        counts += np.bincount(each.ravel().astype(np.int64) - first, minlength=len(counts))
    used = counts[counts > 0]
    parts = used / used.sum()
    reached = np.cumsum(counts)
    begin = int(np.searchsorted(reached, TAIL * reached[-1], "right"))
    end = int(np.searchsorted(reached, (1 - TAIL) * reached[-1])) + 1
    width = -(-(end - begin) // BARS)
    bars = np.add.reduceat(counts[begin:end], np.arange(0, end - begin, width))
    return Histogram(
        role=name,
        tensors=len(arrays),
        first=first + begin,
        width=width,
        counts=tuple(bars.tolist()),
        below=int(counts[:begin].sum()),
        above=int(counts[end:].sum()),
        lowest=first,
        highest=last,
        entropy_bits=float(-(parts * np.log2(parts)).sum()) + 0.0,
    )
