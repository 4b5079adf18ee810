"""The whole examination of one submission: count, reload, score, compare."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from codec.budget import PARAMETER_GOLF
from codec.encoder import encode
from codec.errors import InputError
from codec.progress import Bar, silent_bar
from codec.storage.checkpoint import read_checkpoint
from verify import submission_rules as checks
from verify.audit.prefix_probe import check_prefix
from verify.claims.group_rules import check_group
from verify.claims.runs import read_group
from verify.finding import Finding
from verify.rescore import Reloaded, reload
from verify.sandbox.launch import Settings
from verify.scoring.adaptation import Kind
from verify.scoring.heldout import HeldOut
from verify.scoring.reservoir import Sample
from verify.submission.byte_count import count
from verify.submission.folder import Submission
from verify.submission.static_scan import triage
from verify.submission_rules import check_claimed_score
from verify.verdict import Verdict


def examine(
    submission: Submission,
    heldout: HeldOut,
    settings: Settings,
    *,
    scores: Sequence[Kind] = (),
    checkpoint: str | Path | None = None,
    cap: int = PARAMETER_GOLF.total_bytes,
    bar: Bar = silent_bar,
) -> Verdict:
    """Judge a submission on held-out text.

    scores: more scorers; the sliding score comes first in any case, and claims and penalty are about that.
    checkpoint: float weights it was packed from; they are scored through the submission's own script.
    cap: bytes.  bar: label, total targets -> context manager that yields a progress callback.

    Raises: InputError when something is unreadable, does not belong together or does not run; LimitError at
    the time limit.
    """
    counted = count(submission.folder, submission.artifact, cap)
    findings = [
        checks.check_cap(counted),
        checks.check_folder(submission),
        checks.check_claimed_bytes(submission, counted),
        checks.check_claimed_hashes(submission),
        *_logged(submission, cap),
        checks.check_foreign(submission) if submission.foreign else checks.check_artifact(submission),
        *triage(submission),
        checks.check_tokenizer(submission, heldout),
        checks.check_bytes_proof(heldout),
    ]
    lossless = _lossless(checkpoint, submission) if checkpoint else None
    more = [kind for kind in dict.fromkeys(scores) if kind != "sliding"]
    sample = Sample()
    with bar("scoring", heldout.targets) as progress:
        packed = reload(submission, submission.blob, heldout, settings, progress, later=more, sample=sample)
    settings = replace(settings, length=packed.length)
    findings += [
        *packed.findings,
        checks.check_state(submission, packed),
        checks.check_coverage(packed.score, heldout),
        check_prefix(submission, heldout, settings, sample),
        check_claimed_score(submission, packed.score, heldout, settings),
        checks.check_time(packed.score, settings),
    ]
    adapted = [_adapted(kind, submission, heldout, settings, bar) for kind in more]
    for again in adapted:  # each had a process of its own, in which the script may have behaved otherwise
        findings += [one for one in (*again.findings, checks.check_state(submission, again)) if one.level == "fail"]
    float_bpb = None
    if lossless:
        with bar("scoring floats", heldout.targets) as progress:
            unpacked = reload(submission, lossless, heldout, settings, progress).score
        findings.append(checks.check_penalty(packed.score, unpacked))
        float_bpb = unpacked.bpb
    return Verdict(
        findings=tuple(findings),
        bytes=counted,
        scores=(packed.score, *[again.score for again in adapted]),
        length=packed.length,
        float_bpb=float_bpb,
    )


def _logged(submission: Submission, cap: int) -> list[Finding]:
    """What the folder's logs show by themselves and against submission.json; [] without a log that holds a score."""
    try:
        group = read_group([submission.folder])
        return check_group(group, cap) if group.logs else []
    except InputError as error:
        if submission.claims.get("val_bpb") is None:
            return []
        return [Finding(rule="log.headline", level="unknown", message=f"no log that can be read: {error.message}")]


def _adapted(kind: Kind, submission: Submission, heldout: HeldOut, settings: Settings, bar: Bar) -> Reloaded:
    with bar(f"scoring by {kind}", heldout.targets) as progress:
        return reload(submission, submission.blob, heldout, settings, progress, score=kind)


def window_length(submission: Submission) -> int:
    """The window length the model was trained with, in tokens.

    Raises: InputError when the artifact does not say.
    """
    config = submission.meta.get("config")
    length = config.get("seq_len") if isinstance(config, dict) else None
    if not isinstance(length, int) or length < 1:
        raise InputError("does not state config.seq_len", where=str(submission.artifact), hint="pass --seq-len N")
    return length


def _lossless(checkpoint: str | Path, submission: Submission) -> bytes:
    """The checkpoint as an artifact that loses nothing: float32 tensors, the submission's metadata."""
    tensors, _ = read_checkpoint(checkpoint)
    shapes = {name: array.shape for name, array in tensors.items()}
    packed = {name: array.shape for name, array in submission.tensors.items()}
    if shapes != packed:
        names = sorted(name for name in shapes.keys() | packed.keys() if shapes.get(name) != packed.get(name))
        raise InputError(
            f"is not what this artifact was packed from: {len(names)} tensors differ in name or shape, "
            f"first `{names[0]}`",
            where=str(checkpoint),
            hint="pass the checkpoint given to `pgolf pack`",
        )
    floats = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in tensors.items()}
    return encode(floats, submission.meta)
