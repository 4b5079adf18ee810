"""The submission folder: everything in it is computed from the checkpoint, the recipe and the script.

No clock and no path enters any file, so equal inputs give equal folders.
"""

import hashlib
import json
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import decode_source
from pathlib import Path
from typing import Any

import numpy as np

from codec.allocation.fit_stages import fit_stages, fitting
from codec.allocation.plan import FittedRecipe
from codec.budget import PARAMETER_GOLF
from codec.encoder import artifact_meta, encode
from codec.errors import InputError, LimitError, UsageError
from codec.html import Shown
from codec.measurement.byte_ledger import ByteLedger, copies, ledger, of_submission
from codec.measurement.losses import loss_notes, losses
from codec.measurement.weight_count import weight_count
from codec.model_file import predicted_nats
from codec.progress import Progress, silent
from codec.quantization.recipe import Recipe, quantize_checkpoint, rounding_notes
from codec.quantization.recipe_files import DEFAULT_RECIPE, load_recipe, recipe_text
from codec.storage.atomic_files import new_folder, read_bytes, within
from codec.storage.calibration_file import read_layers, sha256
from codec.work import DECODE, UNITS, Stages, quantizing
from packager.fitting import check_fit, fitted
from packager.importers.imported import STORED, Imported
from packager.importers.read_any import read_any
from packager.reference import SCRIPT, Training, reference_bundle
from packager.requirements import requirements
from packager.script.bundle import Bundle, bundle
from packager.script.packed_script import packed_script, steps
from packager.script.wrapper import Form
from packager.trial_load import trial_load

ARTIFACT, RECORD, LOG = "model.bin", "submission.json", "train.log"
LEDGER, README, REQUIREMENTS = "ledger.json", "README.md", "requirements.txt"
FILES = {SCRIPT, ARTIFACT, RECORD, LEDGER, README, REQUIREMENTS}  # and a log: no record of others has model.bin
DECIDING = ("numpy", "python-minifier")  # packages whose version can change the bytes of a submission
STAGES = UNITS  # of a plan, whose costs are these
CODE = 25_000_000  # weights that are encoded in the time that minifying takes, for a script that trains
LOGGED_TOTAL = re.compile(rb"^Total submission size PGA1: (\d+) bytes$", re.MULTILINE)
GUESSED = "guessed"  # metadata: switches of the model that nobody stated
DECODER = "codec.decoder"  # the module that reads artifacts


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """What to pack.  recipe: a name, a TOML file, or `stored`.  script: None for the reference script.

    preset_of: a checkpoint's metadata -> TOML of the preset that the reference script trains; with None it evaluates
    only, as it does for recipe `stored`.
    cap: bytes that code and artifact may have together.  author, title: for submission.json.
    minified: False carries the sources as they are written.  form: of the wrapper.
    hessians: a calibration file, for recipes with GPTQ.
    margin: fit the recipe's steps so that this many bytes are left under the cap; None leaves the recipe as it is.
    artifact_bytes, bits_per_weight: instead of a margin, what the artifact may have, in all or for each float weight.
    read: opens the checkpoint; the commands pass a reader that also tells the model of a file without config.
    """

    checkpoint: Path
    recipe: str = DEFAULT_RECIPE
    script: Path | None = None
    preset_of: Callable[[Mapping[str, Any]], str | None] = lambda notes: None
    cap: int = PARAMETER_GOLF.total_bytes
    author: str | None = None
    title: str | None = None
    minified: bool = True
    form: Form = "safe"
    hessians: Path | None = None
    margin: int | None = None
    artifact_bytes: int | None = None
    bits_per_weight: float | None = None
    read: Callable[[Path], Imported] = read_any

    @property
    def fits(self) -> bool:
        return any(each is not None for each in (self.margin, self.artifact_bytes, self.bits_per_weight))

    def goal(self, code_bytes: int, weights: int) -> int:
        """What code and artifact may have together when steps are fitted."""
        if self.bits_per_weight is not None:
            return code_bytes + int(self.bits_per_weight * weights / 8)
        return self.cap - (self.margin or 0) if self.artifact_bytes is None else code_bytes + self.artifact_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSubmission(Shown):
    """A packed submission in memory.  files: name -> content; recipe: its name; notes: of import and rounding.

    trains: whether the script trains, packs and scores, or evaluates only; None = it is the user's own.
    fitted: the plan behind a recipe whose steps were fitted.  nats: that rounding is predicted to add to the loss of a
    token, over the calibrated tensors; None without calibration.
    """

    files: dict[str, bytes]
    ledger: ByteLedger
    recipe: str
    trains: bool | None
    cap: int
    notes: tuple[str, ...]
    fitted: FittedRecipe | None = None
    nats: float | None = None

    @property
    def code_bytes(self) -> int:
        return len(self.files[SCRIPT])

    @property
    def artifact(self) -> bytes:
        return self.files[ARTIFACT]

    @property
    def artifact_bytes(self) -> int:
        return len(self.artifact)

    @property
    def total_bytes(self) -> int:
        """What the challenge counts: code + artifact."""
        return self.code_bytes + self.artifact_bytes

    def to_dict(self) -> dict[str, Any]:
        """What `pgolf pack --json` says of it."""
        return {
            "trains": self.trains,
            "recipe": self.recipe,
            "artifact_bytes": self.artifact_bytes,
            "code_bytes": self.code_bytes,
            "total_bytes": self.total_bytes,
            "cap_bytes": self.cap,
            "sha256": self.sha256,
            **({} if self.nats is None else {"predicted_nats": self.nats}),
        }

    @property
    def sha256(self) -> str:
        """Of all names and contents, in order of names, each led by its length."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            for part in (name.encode(), content):
                digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()


def plan_submission(options: PackOptions, progress: Progress = silent) -> PackedSubmission:
    """Quantize, encode, wrap, let the reference script load the artifact, and describe; nothing is written.

    progress: told how many of STAGES are done, and what is at work.
    Raises: LimitError over the cap, or when no steps fit; InputError for a checkpoint or script that cannot be packed;
    UsageError for an unknown recipe or a cap below 1; as `trial_load`.
    """
    if options.cap < 1:
        raise UsageError(f"the cap is {options.cap} bytes, it must be at least 1")
    check_fit(options.recipe, options.cap, (options.margin or 0) if options.fits else None)
    if options.recipe == STORED and options.hessians:
        raise UsageError(f"recipe `{STORED}` keeps the file's own levels, Hessians cannot change them")
    recipe = None if options.recipe == STORED else load_recipe(options.recipe)
    imported = options.read(options.checkpoint)
    notes = imported.metadata
    if options.script is None and not isinstance(notes.get("config"), dict):
        raise InputError(
            "has no model config in its metadata, which the reference script needs",
            where=str(options.checkpoint),
            hint="train with `pgolf train`, or pass --script FILE",
        )
    weights = sum(each.size for each in imported.tensors.values())
    stages = Stages(progress, _costs(options, recipe, imported.tensors, weights))
    stages.begin("code")
    preset = None if options.script or options.recipe == STORED else options.preset_of(notes)
    parts = _bundle(options, preset)
    if options.script is not None and DECODER not in parts.modules:
        raise InputError(
            f"does not import {DECODER}, so it cannot read the artifact that is made of a checkpoint",
            where=str(options.script),
            hint="import `decode` from codec.decoder there, or pack what the script itself wrote with --artifact FILE",
        )
    code = packed_script(
        parts,
        str(options.script or SCRIPT),
        minified=options.minified,
        form=options.form,
        progress=stages.of("code", steps(parts)),
    )
    stages.begin("quantize")
    meta = {**artifact_meta(notes), **{key: notes[key] for key in (GUESSED,) if notes.get(key)}}
    layers = read_layers(options.hessians, options.checkpoint, imported.tensors) if options.hessians else None
    plan = None
    with within(options.checkpoint):
        if recipe and options.fits:
            report = stages.of("quantize", fit_stages(recipe, imported.tensors))
            floats = {name: each for name, each in imported.tensors.items() if each.dtype.kind == "f"}
            goal = options.goal(len(code), weight_count(floats))
            plan = fitted(imported, recipe, layers, goal=goal, code_bytes=len(code), meta=meta, progress=report)
            recipe, treated = plan.recipe, plan.treated
        elif recipe:
            treated = quantize_checkpoint(imported.tensors, recipe, layers, stages.of("quantize", weights))
        else:
            treated = imported.decodable_levels()
    stages.begin("encode")
    name = recipe.name if recipe else STORED
    lost = rounding_notes(recipe, imported.tensors, layers) if recipe else ()
    damage = loss_notes(losses(imported.tensors, treated)) if recipe else ()
    blob = encode(treated, {**meta, "recipe": name})
    stages.begin("decode again")
    costs = ledger(blob, copies(imported.tensors))
    _check_cap(len(code), costs, options.cap)
    stages.begin("load as the script does")
    if options.script is None:
        trial_load(code, blob, treated, SCRIPT)
    log, left_out = _log(options.checkpoint, len(code), len(blob))
    files = {
        SCRIPT: code,
        ARTIFACT: blob,
        **log,
        REQUIREMENTS: requirements(parts.requires, parts.optional).encode(),
        LEDGER: _json(of_submission(costs, len(code), [*parts.modules], plan.to_dict() if plan else None)),
    }
    record = _record(options, notes, name, files)
    trains = None if options.script else preset is not None
    files |= {RECORD: _json(record), README: _readme(record, trains, LOG in files).encode()}
    stages.end()
    return PackedSubmission(
        files=files,
        ledger=costs,
        recipe=name,
        trains=trains,
        cap=options.cap,
        notes=(*imported.notes, *lost, *damage, *left_out),
        fitted=plan,
        nats=predicted_nats(imported.tensors, treated, layers),
    )


def _costs(
    options: PackOptions, recipe: Recipe | None, tensors: Mapping[str, np.ndarray], weights: int
) -> dict[str, float]:
    work = fitting if options.fits else quantizing
    return {
        "code": CODE if options.minified else CODE / 10,
        "quantize": work(recipe, tensors) if recipe else 0.0,
        "encode": weights,
        "decode again": DECODE * weights,
        "load as the script does": DECODE * weights,
    }


def build_submission(options: PackOptions, folder: Path, progress: Progress = silent) -> PackedSubmission:
    """Plan and write the folder, complete or not at all; an earlier submission there is replaced.

    Raises: as `plan_submission`; UsageError when `folder` holds something else.
    """
    with new_folder(folder, replaces=lambda names: names - {LOG} == FILES) as temporary:
        submission = plan_submission(options, progress)
        for name, content in submission.files.items():
            (temporary / name).write_bytes(content)
    return submission


def _bundle(options: PackOptions, preset: str | None) -> Bundle:
    if options.script is None:
        if preset is None:
            return reference_bundle(None)
        recipe = recipe_text(options.recipe)
        return reference_bundle(Training(preset=preset, recipe=recipe, cap=options.cap, margin=options.margin))
    try:
        return bundle(decode_source(read_bytes(options.script)), str(options.script), beside=options.script.parent)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"is not Python source ({error})", where=str(options.script)) from None


def _check_cap(code_bytes: int, costs: ByteLedger, cap: int) -> None:
    total = code_bytes + costs.artifact_bytes
    if total > cap:
        dearest = sorted(costs.rows, key=lambda row: (-row.bytes, row.name))[:3]
        names = ", ".join(
            f"{row.name} ({row.bytes:,.0f} bytes, {row.bits_per_weight:.2f} bits per weight)" for row in dearest
        )
        raise LimitError(
            f"code {code_bytes:,} + artifact {costs.artifact_bytes:,} = {total:,} bytes, "
            f"{total - cap:,} over the cap of {cap:,}",
            hint=f"give fewer bits to the tensors that cost most: {names}",
        )


def _log(checkpoint: Path, code: int, model: int) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The log beside the checkpoint, and a note when it stays out: a script's own run logs the sizes that it made."""
    path = checkpoint.parent / LOG
    if not path.is_file():
        return {}, ()
    log = path.read_bytes()
    total = LOGGED_TOTAL.findall(log)
    if total and int(total[-1]) != code + model:
        return {}, (f"{path} is of a submission of {int(total[-1]):,} bytes, this one has {code + model:,}: left out",)
    return {LOG: log}, ()


def record_head(author: str | None, title: str | None) -> dict[str, Any]:
    """How a submission.json begins: what its packer said, and null for what is not known yet."""
    return {
        "author": author,
        "github_id": None,
        "name": title,
        "blurb": None,
        "date": None,
        "val_bpb": None,
        "val_loss": None,
    }


def _record(options: PackOptions, notes: dict[str, Any], recipe: str, files: dict[str, bytes]) -> dict[str, Any]:
    """submission.json.  What nobody measured or said is null: val_bpb too, it is the packed model's."""
    code, model = files[SCRIPT], files[ARTIFACT]
    seed = notes.get("seed")
    return {
        **record_head(options.author, options.title),
        "pre_quant_val_bpb": notes.get("val_bpb"),
        "seeds": [] if seed is None else [seed],
        "bytes_total": len(code) + len(model),
        "bytes_code": len(code),
        "bytes_model": len(model),
        "artifact_sha256": hashlib.sha256(model).hexdigest(),
        "script_sha256": hashlib.sha256(code).hexdigest(),
        "tokenizer_sha256": notes.get("tokenizer_sha256"),
        "hessians_sha256": sha256(options.hessians) if options.hessians else None,
        "recipe": recipe,
        "preset": notes.get("preset"),
        "steps": notes.get("steps"),
        "train_tokens": notes.get("tokens"),
        "train_seconds": notes.get("train_seconds"),
        "versions": {"python": platform.python_version(), **{each: metadata.version(each) for each in DECIDING}},
    }


def _readme(record: dict[str, Any], trains: bool | None, with_log: bool) -> str:
    does = {
        True: f"trains a model, packs it into `{ARTIFACT}`, loads that from disk and scores it",
        False: f"evaluates the model in `{ARTIFACT}`",
        None: f"comes with the model in `{ARTIFACT}`",
    }
    seed = f" --seed {record['seeds'][0]}" if record["seeds"] else ""
    train = f"    torchrun --standalone --nproc_per_node=8 {SCRIPT}{seed} --data DATA --output RUN\n" if trains else ""
    run = f"""
Run it with a data folder that holds {"`*_train_*.bin`, " if trains else ""}`*_val_*.bin` and the tokenizer `*.model`:

    pip install -r requirements.txt
{train}    python {SCRIPT} --eval --data DATA

The score is not stored here (`val_bpb` in `{RECORD}` is null); the command prints it.
"""
    log = f", `{LOG}` the log of the training run" if with_log else ""
    trained = "".join(
        f"- {label}: {record[key]}\n"
        for label, key in (
            ("recipe", "recipe"),
            ("preset", "preset"),
            ("steps", "steps"),
            ("training tokens", "train_tokens"),
            ("training seconds", "train_seconds"),
            ("seeds", "seeds"),
        )
        if record[key] not in (None, [])
    )
    return f"""\
# {record["name"] or "Packed language model"}

`{SCRIPT}` {does[trains]}. It is packed: `pgolf inspect {SCRIPT} --unwrap DIR` writes the
sources it runs. `ledger.json` says what every tensor costs{log}.

{trained}
| part | bytes |
|---|--:|
| {SCRIPT} | {record["bytes_code"]:,} |
| {ARTIFACT} | {record["bytes_model"]:,} |
| total | {record["bytes_total"]:,} |
{"" if trains is None else run}"""


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
