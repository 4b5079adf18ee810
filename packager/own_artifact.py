"""A submission folder around an artifact that somebody's own script wrote; of its content nothing is known here."""

import hashlib
import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from codec.budget import PARAMETER_GOLF
from codec.decoder import MAGIC
from codec.errors import InputError, LimitError, UsageError
from codec.progress import Bar, silent_bar
from codec.storage.atomic_files import new_folder, read_bytes
from packager.reference import SCRIPT
from packager.requirements import requirements
from packager.script.bundle import Bundle
from packager.script.packed_script import packed_script, steps
from packager.script.wrapper import Form
from packager.submission import DECODER, README, RECORD, REQUIREMENTS, record_head


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnArtifactOptions:
    """What to put together.  parts: the script with what it carries; script: its path, for messages.

    artifact: a file, which keeps its name.  cap: bytes that code and artifact may have together.  author, title: for
    submission.json.  minified, form: of the packed script.
    """

    parts: Bundle
    script: Path
    artifact: Path
    cap: int = PARAMETER_GOLF.total_bytes
    author: str | None = None
    title: str | None = None
    minified: bool = True
    form: Form = "safe"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSubmission:
    """files: name -> content.  All sizes in bytes."""

    files: dict[str, bytes]
    code_bytes: int
    artifact_bytes: int

    @property
    def total_bytes(self) -> int:
        """What the challenge counts: code + artifact."""
        return self.code_bytes + self.artifact_bytes


def plan_own_submission(options: OwnArtifactOptions, bar: Bar = silent_bar) -> OwnSubmission:
    """Wrap the script and describe the folder; nothing is written.

    Raises: LimitError over the cap; InputError for a script that cannot be packed, or an artifact of this toolkit
    beside a script that has no decoder for it; UsageError for a name that the folder needs itself.
    """
    blob, name = read_bytes(options.artifact), options.artifact.name
    if name in {SCRIPT, RECORD, README, REQUIREMENTS}:
        raise UsageError("has a name that the folder needs itself", where=str(options.artifact), hint="rename it")
    if blob.startswith(MAGIC) and DECODER not in options.parts.modules:
        raise InputError(
            f"is an artifact of this toolkit, and {options.script.name} does not import {DECODER}, which reads it",
            where=str(options.artifact),
            hint="import `decode` from codec.decoder there, or pass the artifact that the script itself writes",
        )
    with bar("pack", steps(options.parts)) as step:
        code = packed_script(
            options.parts, str(options.script), minified=options.minified, form=options.form, progress=step
        )
    total = len(code) + len(blob)
    if total > options.cap:
        raise LimitError(
            f"code {len(code):,} + artifact {len(blob):,} = {total:,} bytes, "
            f"{total - options.cap:,} over the cap of {options.cap:,}",
            hint=f"make {name} smaller" if options.form == "dense" else f"make {name} smaller, or pass --form dense",
        )
    record = _record(options, code, blob)
    needed = requirements(options.parts.requires, options.parts.optional)
    files = {
        SCRIPT: code,
        name: blob,
        REQUIREMENTS: needed.encode(),
        RECORD: (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode(),
        README: _readme(record, name).encode(),
    }
    return OwnSubmission(files=files, code_bytes=len(code), artifact_bytes=len(blob))


def build_own_submission(options: OwnArtifactOptions, folder: Path, bar: Bar = silent_bar) -> OwnSubmission:
    """Plan and write the folder, complete or not at all; an earlier one with the same files is replaced.

    Raises: as `plan_own_submission`; UsageError when `folder` holds something else.
    """
    wanted = {SCRIPT, options.artifact.name, REQUIREMENTS, RECORD, README}
    with new_folder(folder, replaces=lambda names: names == wanted) as temporary:
        submission = plan_own_submission(options, bar)
        for name, content in submission.files.items():
            (temporary / name).write_bytes(content)
    return submission


def _record(options: OwnArtifactOptions, code: bytes, blob: bytes) -> dict[str, Any]:
    """submission.json.  What nobody measured or said is null."""
    return {
        **record_head(options.author, options.title),
        "seeds": [],
        "bytes_total": len(code) + len(blob),
        "bytes_code": len(code),
        "bytes_model": len(blob),
        "artifact": options.artifact.name,
        "artifact_sha256": hashlib.sha256(blob).hexdigest(),
        "script_sha256": hashlib.sha256(code).hexdigest(),
        "versions": {"python": platform.python_version(), "python-minifier": metadata.version("python-minifier")},
    }


def _readme(record: dict[str, Any], artifact: str) -> str:
    return f"""\
# {record["name"] or "Packed submission"}

`{SCRIPT}` is packed: `pgolf inspect {SCRIPT} --unwrap DIR` writes the sources it runs. `{artifact}` is taken over as it
was given; what it holds, and what score it reaches, was not looked at here.

| part | bytes | sha256 |
|---|--:|---|
| {SCRIPT} | {record["bytes_code"]:,} | {record["script_sha256"]} |
| {artifact} | {record["bytes_model"]:,} | {record["artifact_sha256"]} |
| total | {record["bytes_total"]:,} | |

What the script needs is in `{REQUIREMENTS}`. `val_bpb` in `{RECORD}` is null until somebody measures it.
"""
