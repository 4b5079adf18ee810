"""The whole examination of one submission: count, scan, reload and score it; then judge what was measured."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from codec.budget import PARAMETER_GOLF
from codec.encoder import encode
from codec.errors import InputError
from codec.progress import Bar, silent_bar
from codec.storage.checkpoint import read_checkpoint
from verify.audit.prefix_probe import probe_prefix
from verify.claims.group_rules import GroupFacts
from verify.claims.runs import read_group
from verify.facts import ArtifactFacts, Facts, FolderFacts, LogsFacts, Shipped, TextFacts
from verify.finding import Finding
from verify.folder_rules import folder_judges
from verify.rescore import Rescored, reload
from verify.run_rules import run_judges
from verify.sandbox.launch import Settings
from verify.scoring.adaptation import ScorerName
from verify.scoring.heldout import HeldOut
from verify.scoring.reservoir import Sample
from verify.scoring.scorer import Scored
from verify.submission.byte_count import MAIN, count, unexpected
from verify.submission.folder import Submission
from verify.submission.static_scan import scan_submission
from verify.verdict import Verdict

Read = Callable[[str | Path], tuple[Mapping[str, np.ndarray], Mapping[str, Any]]]  # path -> (tensors, metadata)
Watch = Callable[[Scored], None]


def examine(
    submission: Submission,
    heldout: HeldOut,
    settings: Settings,
    *,
    scores: Sequence[ScorerName] = (),
    checkpoint: str | Path | None = None,
    read: Read = read_checkpoint,
    cap: int = PARAMETER_GOLF.total_bytes,
    bar: Bar = silent_bar,
    watch: Watch | None = None,
) -> Verdict:
    """Measure a submission on held-out text and judge it: arguments and errors are those of `measure`."""
    facts = measure(
        submission, heldout, settings, scores=scores, checkpoint=checkpoint, read=read, cap=cap, bar=bar, watch=watch
    )
    return Verdict(
        findings=judge(facts),
        bytes=facts.count,
        scores=(facts.packed.score, *(again.score for again in facts.adapted)),
        length=facts.packed.length,
        float_bpb=facts.floats.bpb if facts.floats else None,
    )


def examine_bare(submission: Submission, cap: int = PARAMETER_GOLF.total_bytes) -> Verdict:
    """Judge a folder whose artifact is not here by what it shows: nothing runs, so nothing is scored.

    Raises: InputError as `byte_count.count`.
    """
    shipped = measure_folder(submission, cap)
    return Verdict(findings=folder_judges.judge(shipped), bytes=shipped.count, scores=())


def judge(facts: Facts) -> tuple[Finding, ...]:
    """What every rule finds in the facts: those about the folder, then those about its runs."""
    return (*folder_judges.judge(facts), *run_judges.judge(facts))


def measure(
    submission: Submission,
    heldout: HeldOut,
    settings: Settings,
    *,
    scores: Sequence[ScorerName] = (),
    checkpoint: str | Path | None = None,
    read: Read = read_checkpoint,
    cap: int = PARAMETER_GOLF.total_bytes,
    bar: Bar = silent_bar,
    watch: Watch | None = None,
) -> Facts:
    """Everything that rules look at; files that belong together are made sure of before the first process starts.

    scores: more scorers; the sliding score comes first in any case, and claims and penalty are about that.
    checkpoint: float weights it was packed from; they are scored through the submission's own script.  read: opens it.
    cap: bytes.  bar: label, total targets -> context manager that yields a progress callback.
    watch: is told every batch of the sliding score, to see where in the text the nats are.

    Raises: InputError when something is unreadable, does not belong together or does not run; LimitError at
    the time limit.
    """
    shipped = measure_folder(submission, cap)
    check_same_tokenizer(submission, heldout)
    lossless = _lossless(checkpoint, read, submission) if checkpoint else None
    more = [kind for kind in dict.fromkeys(scores) if kind != "sliding"]
    sample = Sample()
    with bar("scoring", heldout.targets) as progress:
        packed = reload(
            submission, submission.blob, heldout, settings, progress, later=more, sample=sample, watch=watch
        )
    settings = replace(settings, length=packed.length)
    prefix = probe_prefix(submission, heldout, settings, sample)
    adapted = [_adapted(kind, submission, heldout, settings, bar) for kind in more]
    floats = None
    if lossless:
        with bar("scoring floats", heldout.targets) as progress:
            floats = reload(submission, lossless, heldout, settings, progress).score
    return Facts(
        settings=settings,
        count=shipped.count,
        folder=shipped.folder,
        logs=shipped.logs,
        artifact=shipped.artifact,
        scan=shipped.scan,
        text=TextFacts(
            targets=heldout.targets,
            shard_targets=heldout.shard_targets,
            proof=heldout.proof,
            unproven=heldout.unproven,
            tokenizer_sha256=heldout.tokenizer_sha256,
        ),
        packed=packed,
        adapted=tuple(adapted),
        prefix=prefix,
        floats=floats,
    )


def measure_folder(submission: Submission, cap: int = PARAMETER_GOLF.total_bytes) -> Shipped:
    """What the folder shows before anything of it runs.  cap: bytes.  Raises: InputError as `byte_count.count`."""
    return Shipped(
        count=count(submission.folder, submission.artifact, cap),
        folder=_folder(submission),
        logs=_logs(submission, cap),
        artifact=_artifact(submission),
        scan=scan_submission(submission),
    )


def check_same_tokenizer(submission: Submission, heldout: HeldOut) -> None:
    """Raises: InputError when the artifact names another tokenizer than the text's: every number would be void."""
    trained, used = _tokenizer(submission), heldout.tokenizer_sha256
    if trained and trained != used:
        raise InputError(
            f"has sha256 {used[:12]}..., the model was trained with tokenizer {trained[:12]}...",
            where=str(heldout.tokenizer),
            hint="pass the matching --tokenizer and --data",
        )


def window_length(submission: Submission) -> int:
    """The window length the model was trained with, in tokens.

    Raises: InputError when the artifact does not say.
    """
    config = submission.meta.get("config")
    length = config.get("seq_len") if isinstance(config, dict) else None
    if not isinstance(length, int) or length < 1:
        raise InputError("does not state config.seq_len", where=str(submission.artifact), hint="pass --seq-len N")
    return length


def _lossless(checkpoint: str | Path, read: Read, submission: Submission) -> bytes:
    """The checkpoint as an artifact that loses nothing: float32 tensors, the submission's metadata."""
    tensors, metadata = read(checkpoint)
    if submission.foreign:
        raise InputError(
            f"cannot take the place of {submission.artifact.name}, which is {submission.foreign}: only artifacts of "
            "`pgolf pack` can be exchanged for their float weights",
            where=str(checkpoint),
            hint="leave out --checkpoint",
        )
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
    _check_same_model(metadata.get("config"), submission.meta.get("config"), checkpoint)
    floats = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in tensors.items()}
    return encode(floats, submission.meta)


def _check_same_model(stated: Any, packed: Any, checkpoint: str | Path) -> None:
    """Raises: InputError when the checkpoint states another model than the artifact's, but for starting values."""
    if not isinstance(stated, dict) or not isinstance(packed, dict):
        return
    both = [name for name in sorted(stated.keys() & packed.keys()) if not name.endswith(("_init", "_std"))]
    other = [name for name in both if stated[name] != packed[name]]
    if other:
        raise InputError(
            f"is of a model with {other[0]} {stated[other[0]]}, the artifact's has {packed[other[0]]}",
            where=str(checkpoint),
            hint="pack it again: an artifact runs as the model that its config describes",
        )


def _folder(submission: Submission) -> FolderFacts:
    extra = unexpected(submission.folder, submission.artifact)
    return FolderFacts(
        unexpected=tuple(name for name in extra if name not in submission.tolerated),
        script_sha256=hashlib.sha256((submission.folder / MAIN).read_bytes()).hexdigest(),
        claims=submission.claims,
        environment=submission.environment,
        stated_in=submission.stated_in,
    )


def _logs(submission: Submission, cap: int) -> LogsFacts:
    try:
        group = read_group([submission.folder])
    except InputError as error:
        return LogsFacts(group=None, error=error.message)
    return LogsFacts(group=GroupFacts(group=group, cap=cap) if group.logs else None)


def _artifact(submission: Submission) -> ArtifactFacts:
    return ArtifactFacts(
        name=submission.artifact.name,
        size=len(submission.blob),
        sha256=hashlib.sha256(submission.blob).hexdigest(),
        foreign=submission.foreign,
        state={
            name: {
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
            }
            for name, array in submission.tensors.items()
        },
        tokenizer_sha256=_tokenizer(submission),
    )


def _tokenizer(submission: Submission) -> str:
    return str(submission.meta.get("tokenizer_sha256") or "")


def _adapted(kind: ScorerName, submission: Submission, heldout: HeldOut, settings: Settings, bar: Bar) -> Rescored:
    with bar(f"scoring by {kind}", heldout.targets) as progress:
        return reload(submission, submission.blob, heldout, settings, progress, score=kind)
