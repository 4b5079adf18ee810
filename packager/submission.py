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

from codec.budget import PARAMETER_GOLF
from codec.decoder import QuantizedTensor
from codec.encoder import encode_checkpoint
from codec.errors import InputError, LimitError, UsageError
from codec.measurement.byte_ledger import ByteLedger, ledger, of_submission
from codec.progress import Progress, silent
from codec.quantization.recipe import Recipe, load_recipe, quantize_checkpoint, recipe_text, rounding_notes
from codec.storage.atomic_files import new_folder, read_bytes, within
from codec.storage.calibration_file import read_hessians, sha256
from packager.importers.imported import STORED, Imported
from packager.importers.read_any import read_any
from packager.script.bundle import Bundle, bundle
from packager.script.reference import SCRIPT, packed_script, reference_bundle

ARTIFACT, RECORD, LOG = "model.bin", "submission.json", "train.log"
LEDGER, README, REQUIREMENTS = "ledger.json", "README.md", "requirements.txt"
FILES = {SCRIPT, ARTIFACT, RECORD, LEDGER, README, REQUIREMENTS}  # and a log: no record of others has model.bin
DECIDING = ("numpy", "python-minifier")  # packages whose version can change the bytes of a submission
STAGES = 4
LOGGED_TOTAL = re.compile(rb"^Total submission size PGA1: (\d+) bytes$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """What to pack.  recipe: a name, a TOML file, or `stored`.  script: None for the reference script.

    preset_of: a checkpoint's metadata -> TOML of the preset that the reference script trains; with None it evaluates
    only, as it does for recipe `stored`.
    cap: bytes that code and artifact may have together.  author, title: for submission.json.
    minified: False carries the sources as they are written.  hessians: a calibration file, for recipes with GPTQ.
    read: opens the checkpoint; the commands pass a reader that also tells the model of a file without config.
    """

    checkpoint: Path
    recipe: str
    script: Path | None = None
    preset_of: Callable[[Mapping[str, Any]], str | None] = lambda notes: None
    cap: int = PARAMETER_GOLF.total_bytes
    author: str | None = None
    title: str | None = None
    minified: bool = True
    hessians: Path | None = None
    read: Callable[[Path], Imported] = read_any


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSubmission:
    """A packed submission in memory.  files: name -> content; recipe: its name; notes: of import and rounding.

    trains: whether the script trains, packs and scores, or evaluates only; None = it is the user's own.
    """

    files: dict[str, bytes]
    ledger: ByteLedger
    recipe: str
    trains: bool | None
    cap: int
    notes: tuple[str, ...]

    @property
    def code_bytes(self) -> int:
        return len(self.files[SCRIPT])

    @property
    def artifact_bytes(self) -> int:
        return len(self.files[ARTIFACT])

    @property
    def total_bytes(self) -> int:
        """What the challenge counts: code + artifact."""
        return self.code_bytes + self.artifact_bytes

    @property
    def sha256(self) -> str:
        """Of all names and contents, in order of names, each led by its length."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            for part in (name.encode(), content):
                digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()


def plan_submission(options: PackOptions, progress: Progress = silent) -> PackedSubmission:
    """Quantize, encode, wrap and describe; nothing is written.

    progress: told the number of stages done, of STAGES, and the stage that begins.
    Raises: LimitError over the cap; InputError for a checkpoint or script that cannot be packed; UsageError
    for an unknown recipe or a cap below 1.
    """
    if options.cap < 1:
        raise UsageError(f"the cap is {options.cap} bytes, it must be at least 1")
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
    progress(0, "code")
    preset = None if options.script or options.recipe == STORED else options.preset_of(notes)
    parts = _bundle(options, preset)
    code = packed_script(parts, str(options.script or SCRIPT), minified=options.minified)
    progress(1, "quantize")
    treated = _treated(imported, recipe, options)
    progress(2, "encode")
    name = recipe.name if recipe else STORED
    lost = rounding_notes(recipe, imported.tensors) if recipe and not options.hessians else ()
    blob = encode_checkpoint(treated, notes, name)
    progress(3, "decode again")
    costs = ledger(blob)
    _check_cap(len(code), costs, options.cap)
    log, left_out = _log(options.checkpoint, len(code), len(blob))
    files = {
        SCRIPT: code,
        ARTIFACT: blob,
        **log,
        REQUIREMENTS: "".join(f"{name}\n" for name in parts.requires).encode(),
        LEDGER: _json(of_submission(costs, len(code), [*parts.modules])),
    }
    record = _record(options, notes, name, files)
    trains = None if options.script else preset is not None
    files |= {RECORD: _json(record), README: _readme(record, trains, LOG in files).encode()}
    progress(STAGES, "")
    return PackedSubmission(
        files=files,
        ledger=costs,
        recipe=name,
        trains=trains,
        cap=options.cap,
        notes=(*imported.notes, *lost, *left_out),
    )


def build_submission(options: PackOptions, folder: Path, progress: Progress = silent) -> PackedSubmission:
    """Plan and write the folder, complete or not at all; an earlier submission there is replaced.

    Raises: as `plan_submission`; UsageError when `folder` holds something else.
    """
    with new_folder(folder, replaces=lambda names: names - {LOG} == FILES) as temporary:
        submission = plan_submission(options, progress)
        for name, content in submission.files.items():
            (temporary / name).write_bytes(content)
    return submission


def _treated(
    imported: Imported, recipe: Recipe | None, options: PackOptions
) -> dict[str, QuantizedTensor | np.ndarray]:
    hessians = None
    if options.hessians:
        hessians = read_hessians(options.hessians, options.checkpoint, imported.tensors)
    with within(options.checkpoint):
        return quantize_checkpoint(imported.tensors, recipe, hessians) if recipe else imported.decodable_levels()


def _bundle(options: PackOptions, preset: str | None) -> Bundle:
    if options.script is None:
        return reference_bundle(preset, recipe_text(options.recipe) if preset else "")
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


def _record(options: PackOptions, notes: dict[str, Any], recipe: str, files: dict[str, bytes]) -> dict[str, Any]:
    """submission.json.  What nobody measured or said is null: val_bpb too, it is the packed model's."""
    code, model = files[SCRIPT], files[ARTIFACT]
    seed = notes.get("seed")
    return {
        "author": options.author,
        "github_id": None,
        "name": options.title,
        "blurb": None,
        "date": None,
        "val_bpb": None,
        "val_loss": None,
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
    train = f"    torchrun --standalone --nproc_per_node=8 {SCRIPT} --data DATA --output RUN\n" if trains else ""
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

Run it with a data folder that holds {"`*_train_*.bin`, " if trains else ""}`*_val_*.bin` and the tokenizer `*.model`:

    pip install -r requirements.txt
{train}    python {SCRIPT} --eval --data DATA

The score is not stored here (`val_bpb` in `{RECORD}` is null); the command prints it.
"""


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
