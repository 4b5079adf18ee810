"""Any model of safetensors to one small file and back, without code beside it: what `pgolf encode` and `decode` do.

    encoded = encode_checkpoint("model.safetensors", bits_per_weight=3.3)
    write_bytes("model.pga", encoded.artifact)
    decode_checkpoint("model.pga").write("decoded.safetensors")

The recipe decides about every float tensor.  What it leaves as a float passes through as the checkpoint has it,
bfloat16 as bfloat16, and comes back under its own dtype; what it quantizes comes back as float32.  Integers and float8
pass through always.  The safetensors metadata come back too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from codec.allocation.damage import added_nats
from codec.allocation.fit import fit_recipe
from codec.allocation.fit_stages import fit_stages, fitting
from codec.allocation.plan import FittedRecipe
from codec.decoder import QuantizedTensor, read_meta, unpack
from codec.encoder import Tensor, artifact_meta, encode
from codec.errors import CodecError, PgolfError, UsageError
from codec.html import Shown
from codec.measurement.byte_ledger import ByteLedger, copies, ledger
from codec.measurement.losses import decibel, loss_notes, losses
from codec.measurement.weight_count import weight_count
from codec.progress import Progress, silent
from codec.quantization.recipe import Recipe, quantize_checkpoint, rounding_notes
from codec.quantization.recipe_files import DEFAULT_RECIPE, load_recipe
from codec.storage.atomic_files import read_bytes, within
from codec.storage.calibration_file import Layers, read_layers
from codec.storage.checkpoint import NOTES
from codec.storage.safetensors_file import KNOWN, TAGS, Stored, checkpoint_sha256, read_stored, write_stored
from codec.work import DECODE, UNITS, Stages, quantizing

STAGES = UNITS  # what progress is told in all
ARTIFACT = "model.bin"  # of a submission's folder
SAFETENSORS = "safetensors"  # metadata: dtypes of plain tensors, and the checkpoint's own metadata
PASSING = ("BF16", "F16")  # what a recipe leaves as a float stays as it was, if it was one of these


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedModel(Shown):
    """artifact: the bytes.  recipe: its name.  weights: floats, copies counted once.

    snr_db: weight energy over squared error.  nats: that rounding is predicted to add to the loss of a token; None
    without calibration.  passed: names of the tensors that are in it as they were.  notes: of what was lost or guessed.
    fitted: the plan behind fitted steps.
    """

    artifact: bytes
    recipe: str
    weights: int
    ledger: ByteLedger
    snr_db: float
    nats: float | None
    passed: tuple[str, ...]
    notes: tuple[str, ...]
    fitted: FittedRecipe | None = None

    @property
    def bits_per_weight(self) -> float:
        """All bytes over the float weights."""
        return 8 * len(self.artifact) / max(self.weights, 1)

    def to_dict(self) -> dict[str, Any]:
        """The object of `pgolf encode --json`."""
        return {
            "recipe": self.recipe,
            "bytes": len(self.artifact),
            "weights": self.weights,
            "bits_per_weight": self.bits_per_weight,
            "snr_db": self.snr_db,
            **({} if self.nats is None else {"predicted_nats": self.nats}),
            "passed_through": len(self.passed),
            "notes": list(self.notes),
            **({"fit": self.fitted.to_dict()} if self.fitted else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedModel(Shown):
    """tensors: by name, each with its safetensors dtype.  meta: the artifact's, its recipe among them.

    metadata: of the checkpoint that was encoded, text by text.
    """

    tensors: dict[str, Stored]
    meta: dict[str, Any]
    metadata: dict[str, str]

    @property
    def values(self) -> dict[str, np.ndarray]:
        """numpy arrays by name; bfloat16 as float32."""
        return {name: tensor.values for name, tensor in self.tensors.items()}

    @property
    def weights(self) -> int:
        return sum(tensor.array.size for tensor in self.tensors.values())

    def write(self, path: str | Path) -> None:
        """As one safetensors file, atomically."""
        notes = {NOTES: json.dumps(self.meta, sort_keys=True)} if self.meta else {}
        write_stored(path, self.tensors, self.metadata | notes)

    def to_dict(self) -> dict[str, Any]:
        """The object of `pgolf decode --json`, but for the file's name."""
        return {"tensors": len(self.tensors), "weights": self.weights, "meta": self.meta}


def encode_checkpoint(
    path: str | Path,
    recipe: str | Recipe = DEFAULT_RECIPE,
    *,
    artifact_bytes: int | None = None,
    bits_per_weight: float | None = None,
    calibration: str | Path | None = None,
    progress: Progress = silent,
) -> EncodedModel:
    """path: a safetensors file, an index of shards, or the folder of either.  recipe: a name, a TOML file, or itself.

    artifact_bytes, bits_per_weight: fit the recipe's steps to a size, in all or for each float weight.
    calibration: a file of `trainer.Hooks` or `pgolf calibrate`.  progress: told how many of STAGES are done.

    Raises: UsageError for two sizes or an unknown recipe; InputError for a checkpoint or calibration that cannot be
    used; LimitError when no steps fit.
    """
    if artifact_bytes is not None and bits_per_weight is not None:
        raise UsageError("a number of bytes and bits per weight are two sizes", hint="choose one")
    rules = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    progress(0, "read")
    stored, metadata = read_stored(path)
    values = {name: each.values for name, each in stored.items()}
    weights = weight_count({name: each for name, each in values.items() if each.dtype.kind == "f"})
    tensors = {name: stored[name].array if _stays(rules, stored[name], name) else each for name, each in values.items()}
    layers = read_layers(calibration, path, values, checkpoint_sha256) if calibration else None
    every = sum(each.size for each in tensors.values())
    limit = artifact_bytes if bits_per_weight is None else int(bits_per_weight * weights / 8)
    meta, artifact = _meta(metadata), partial(_encoded, stored)
    first = {"quantize": quantizing(rules, tensors)} if limit is None else {"fit": fitting(rules, tensors)}
    stages = Stages(progress, {**first, "encode": every, "compare": DECODE * every})
    with within(path):
        plan = None
        if limit is not None:
            plan = fit_recipe(
                tensors, rules, limit, meta, layers, stages.of("fit", fit_stages(rules, tensors)), artifact
            )
            rules, treated = plan.recipe, plan.treated
        else:
            treated = quantize_checkpoint(tensors, rules, layers, stages.of("quantize", every))
        stages.begin("encode")
        blob = artifact(treated, {**meta, "recipe": rules.name})
    kept = _passing(stored, treated)
    stages.begin("compare")
    lost = losses(values, {name: values[name] if name in kept else each for name, each in treated.items()})
    found = EncodedModel(
        artifact=blob,
        recipe=rules.name,
        weights=weights,
        ledger=ledger(blob, copies(values)),
        snr_db=decibel(sum(loss.signal for loss in lost.values()), sum(loss.noise for loss in lost.values())),
        nats=predicted_nats(values, {name: each for name, each in treated.items() if name not in kept}, layers),
        passed=tuple(sorted(kept)),
        notes=(*rounding_notes(rules, tensors, layers), *loss_notes(lost)),
        fitted=plan,
    )
    stages.end()
    return found


def decode_checkpoint(path: str | Path) -> DecodedModel:
    """path: an artifact, or the folder of a submission.

    Raises: CodecError for what is no complete, undamaged artifact; InputError for a file that is missing.
    """
    file = Path(path, ARTIFACT) if Path(path).is_dir() else Path(path)
    blob = read_bytes(file)
    try:
        meta, (_, tensors) = read_meta(blob), unpack(blob)
        notes = meta.pop(SAFETENSORS, {})
        dtypes, metadata = _checked(notes)
        found = {name: _decoded(name, each, dtypes) for name, each in tensors.items()}
    except PgolfError as error:
        error.where = f"{file}, {error.where}" if error.where else str(file)
        raise
    return DecodedModel(tensors=found, meta=meta, metadata=metadata)


def predicted_nats(
    tensors: Mapping[str, np.ndarray], treated: Mapping[str, Tensor], layers: Layers | None
) -> float | None:
    """What rounding adds to the loss of a token, over the calibrated tensors; None without any."""
    found = [added_nats(name, tensors[name], each, layers) for name, each in treated.items() if name in tensors]
    known = [each for each in found if each is not None]
    return sum(known) if known else None


def _meta(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the artifact holds beside the weights: of a checkpoint of the toolkit what submissions hold, too."""
    own = metadata.get(NOTES, "{}")
    try:
        notes = json.loads(own)
    except ValueError:
        notes = {}
    rest = {key: text for key, text in metadata.items() if key != NOTES}
    known = artifact_meta(notes) if isinstance(notes, dict) else {}
    known.pop("layout", None)  # of matrices that `pack` has split; here every tensor is as the file has it
    return {
        **known,
        **({SAFETENSORS: {"metadata": rest}} if rest else {}),
    }


def _stays(recipe: Recipe, tensor: Stored, name: str) -> bool:
    """Whether the recipe is not asked: it would leave a float, and its float16 might not hold what bfloat16 does."""
    return tensor.dtype in PASSING and recipe.rule(name, tensor.array.size).quantizer is None


def _passing(stored: Mapping[str, Stored], treated: Mapping[str, Tensor]) -> dict[str, Stored]:
    """Tensors that go into the artifact as the checkpoint has them."""
    return {
        name: stored[name]
        for name, each in treated.items()
        if not isinstance(each, QuantizedTensor)
        and (each.dtype.kind != "f" or stored[name].dtype in PASSING or each.dtype == stored[name].array.dtype)
    }


def _encoded(stored: Mapping[str, Stored], treated: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """The artifact, in which what passes through has its own bits; its metadata say which dtypes these are."""
    kept = _passing(stored, treated)
    wanted: dict[str, dict[str, str]] = {}  # dtype inside the artifact -> name -> dtype outside
    for name, each in sorted(treated.items()):
        if not isinstance(each, QuantizedTensor):
            inside = kept[name].array if name in kept else each
            tag = kept[name].dtype if name in kept else "F32" if inside.dtype.kind == "f" else TAGS[inside.dtype.str]
            wanted.setdefault(inside.dtype.str, {})[name] = tag
    dtypes: dict[str, Any] = {}
    for inside_dtype, tags in wanted.items():
        votes = [*tags.values()]
        usual = max(sorted(set(votes)), key=votes.count)
        if usual != _own_tag(inside_dtype):
            dtypes[inside_dtype] = usual
        dtypes |= {f"={name}": tag for name, tag in tags.items() if tag != usual}
    told = {**meta.get(SAFETENSORS, {}), **({"dtypes": dtypes} if dtypes else {})}
    tensors = {name: kept[name].array if name in kept else each for name, each in treated.items()}
    return encode(tensors, {**meta, **({SAFETENSORS: told} if told else {})})


def _own_tag(kind: str) -> str:
    """Of a plain tensor whose artifact says nothing else: float16 is a float32 that the recipe rounded."""
    return "F32" if kind == "<f2" else TAGS[kind]


def _decoded(name: str, tensor: Tensor, dtypes: Mapping[str, str]) -> Stored:
    if isinstance(tensor, QuantizedTensor):
        return Stored("F32", tensor.dequantize())
    kind = tensor.dtype.newbyteorder("<").str
    tag = dtypes.get(f"={name}", dtypes.get(kind, _own_tag(kind)))
    if tag == "F32" and tensor.dtype.kind == "f":
        return Stored(tag, tensor.astype(np.float32))
    if np.dtype(KNOWN.get(tag, "V")) != np.dtype(kind):
        raise CodecError(f"is {kind} and said to be {tag!r:.20}", where=f"tensor `{name}`", hint="the file is damaged")
    return Stored(tag, tensor)


def _checked(notes: Any) -> tuple[dict[str, str], dict[str, str]]:
    """(dtypes, metadata): text by text.  Raises: CodecError for anything else: `encode_checkpoint` wrote none."""
    found = [notes.get(key, {}) if isinstance(notes, dict) else None for key in ("dtypes", "metadata")]
    if not all(isinstance(each, dict) and all(isinstance(text, str) for text in each.values()) for each in found):
        raise CodecError("says something of its dtypes or metadata that is no text", hint="the file is damaged")
    return found[0], found[1]  # type: ignore[return-value]
