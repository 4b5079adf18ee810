"""The submission folder: everything in it is computed from the checkpoint, the recipe and the script.

No clock and no path enters any file, so equal inputs give equal folders.
"""

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, resources
from importlib.util import decode_source
from pathlib import Path
from typing import Any

import numpy as np

from codec.budget import PARAMETER_GOLF
from codec.decoder import QuantizedTensor
from codec.encoder import encode
from codec.errors import InputError, LimitError, UsageError
from codec.measurement.byte_ledger import ByteLedger, ledger
from codec.progress import Progress, silent
from codec.quantization.recipe import Recipe, load_recipe, quantize_checkpoint, rounding_notes
from codec.storage.atomic_files import new_folder, read_bytes, within
from codec.storage.calibration_file import read_hessians, sha256
from packager.importers.imported import STORED, Imported
from packager.importers.read_any import read_any
from packager.requirements import requirements
from packager.script.bundle import Bundle, bundle
from packager.script.packed_script import packed_script

SCRIPT, ARTIFACT, RECORD, LOG = "train_gpt.py", "model.bin", "submission.json", "train.log"
LEDGER, README, REQUIREMENTS = "ledger.json", "README.md", "requirements.txt"
FILES = {SCRIPT, ARTIFACT, RECORD, LEDGER, README, REQUIREMENTS}  # and a log: no record of others has model.bin
DECIDING = ("numpy", "python-minifier")  # packages whose version can change the bytes of a submission
DECODER = "codec.decoder"  # the module that reads artifacts
KEPT = ("config", "layout", "tokenizer_sha256")  # of a checkpoint's metadata, inside the artifact
STAGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """What to pack.  recipe: a name, a TOML file, or `stored`.  script: None for the reference script.

    cap: bytes that code and artifact may have together.  author, title: for submission.json.
    minified: False carries the sources as they are written.  hessians: a calibration file, for recipes with GPTQ.
    read: opens the checkpoint; the commands pass a reader that also tells the model of a file without config.
    """

    checkpoint: Path
    recipe: str
    script: Path | None = None
    cap: int = PARAMETER_GOLF.total_bytes
    author: str | None = None
    title: str | None = None
    minified: bool = True
    hessians: Path | None = None
    read: Callable[[Path], Imported] = read_any


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSubmission:
    """A packed submission in memory.  files: name -> content; recipe: its name; notes: of import and rounding."""

    files: dict[str, bytes]
    ledger: ByteLedger
    recipe: str
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
    parts = _bundle(options.script)
    if options.script is not None and DECODER not in parts.modules:
        raise InputError(
            f"does not import {DECODER}, so it cannot read the artifact that is made of a checkpoint",
            where=str(options.script),
            hint="import `decode` from codec.decoder there, or pack what the script itself wrote with --artifact FILE",
        )
    code = packed_script(parts, str(options.script or SCRIPT), minified=options.minified)
    progress(1, "quantize")
    meta = {key: notes[key] for key in KEPT if notes.get(key) is not None}
    treated = _treated(imported, recipe, options)
    progress(2, "encode")
    name = recipe.name if recipe else STORED
    lost = rounding_notes(recipe, imported.tensors) if recipe and not options.hessians else ()
    blob = encode(treated, {**meta, "recipe": name})
    progress(3, "decode again")
    costs = ledger(blob)
    _check_cap(len(code), costs, options.cap)
    files = {
        SCRIPT: code,
        ARTIFACT: blob,
        **_log(options.checkpoint),
        REQUIREMENTS: requirements(parts.requires, parts.optional).encode(),
        LEDGER: _json(_costs(costs, code, parts)),
    }
    record = _record(options, notes, name, files)
    files |= {RECORD: _json(record), README: _readme(record, LOG in files).encode()}
    progress(STAGES, "")
    return PackedSubmission(files=files, ledger=costs, recipe=name, cap=options.cap, notes=(*imported.notes, *lost))


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


def _bundle(script: Path | None) -> Bundle:
    if script is None:
        data, where = (resources.files("packager") / "template" / SCRIPT).read_bytes(), SCRIPT
    else:
        data, where = read_bytes(script), str(script)
    try:
        return bundle(decode_source(data), where, beside=script.parent if script else None)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"is not Python source ({error})", where=where) from None


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


def _log(checkpoint: Path) -> dict[str, bytes]:
    log = checkpoint.parent / LOG
    return {LOG: log.read_bytes()} if log.is_file() else {}


def _costs(costs: ByteLedger, code: bytes, parts: Bundle) -> dict[str, Any]:
    return {
        "total_bytes": len(code) + costs.artifact_bytes,
        "code": {"bytes": len(code), "modules": [*parts.modules]},
        "artifact": _rounded(costs.to_dict()),
    }


def _rounded(value: Any) -> Any:
    """Floats to 3 decimals: code lengths come from log2, whose last digit may differ between platforms."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


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


def _readme(record: dict[str, Any], with_log: bool) -> str:
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

`{SCRIPT}` evaluates the model in `{ARTIFACT}`. It is packed: `pgolf inspect {SCRIPT} --unwrap DIR` writes the
sources it runs. `ledger.json` says what every tensor costs{log}.

{trained}
| part | bytes |
|---|--:|
| {SCRIPT} | {record["bytes_code"]:,} |
| {ARTIFACT} | {record["bytes_model"]:,} |
| total | {record["bytes_total"]:,} |

Evaluate, with a data folder that holds `*_val_*.bin` and the tokenizer `*.model`:

    pip install -r requirements.txt
    python {SCRIPT} --eval --data DATA

The score is not stored here (`val_bpb` in `{RECORD}` is null); the command prints it.
"""


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
