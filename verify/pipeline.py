"""The whole examination of one submission: count, scan, reload and score it; then judge what was measured."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from codec.budget import PARAMETER_GOLF
from codec.encoder import encode
from codec.errors import InputError
from codec.progress import Bar, silent_bar
from codec.storage.checkpoint import read_checkpoint
from verify import own_rules  # noqa: F401  it registers its judges
from verify.claims.group_rules import GroupFacts
from verify.claims.runs import read_group
from verify.facts import ArtifactFacts, Facts, FolderFacts, LogsFacts, OwnFacts, Shipped, TextFacts
from verify.finding import Finding
from verify.folder_rules import folder_judges
from verify.foresight.adapted import probe_adapted
from verify.foresight.own import OwnRun, probe_own
from verify.foresight.probe import Foresight, Proof, probe, row_count
from verify.foresight.rows import ScoredRun
from verify.foresight.strict import Strict, score_alone
from verify.memorisation import Memorised, ScoredText, look, refuse_shared
from verify.rescore import Rescored, reload
from verify.run_rules import run_judges
from verify.sandbox.launch import Settings, running
from verify.scoring.adaptation import ScorerName
from verify.scoring.heldout import HeldOut
from verify.scoring.windows import plan
from verify.submission.byte_count import MAIN, count, unexpected
from verify.submission.folder import Submission
from verify.submission.run_settings import size
from verify.submission.static_scan import scan_submission
from verify.verdict import Verdict

DEFAULT = Proof()
Read = Callable[[str | Path], tuple[Mapping[str, np.ndarray], Mapping[str, Any]]]  # path -> (tensors, metadata)


def examine(
    submission: Submission,
    heldout: HeldOut,
    settings: Settings,
    *,
    scores: Sequence[ScorerName] = (),
    checkpoint: str | Path | None = None,
    read: Read = read_checkpoint,
    fresh: HeldOut | None = None,
    cap: int = PARAMETER_GOLF.total_bytes,
    proof: Proof = DEFAULT,
    bar: Bar = silent_bar,
) -> Verdict:
    """Measure a submission on held-out text and judge it: arguments and errors are those of `measure`."""
    facts = measure(
        submission,
        heldout,
        settings,
        scores=scores,
        checkpoint=checkpoint,
        read=read,
        fresh=fresh,
        cap=cap,
        proof=proof,
        bar=bar,
    )
    return verdict_of(facts)


def verdict_of(facts: Facts) -> Verdict:
    """The judged facts of a submission that ran."""
    return Verdict(
        findings=judge(facts),
        bytes=facts.count,
        scores=(facts.packed.score, *(again.score for again in facts.adapted)),
        length=facts.packed.length,
        float_bpb=facts.floats.bpb if facts.floats else None,
        own=facts.own.statement.to_dict() if facts.own else None,
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
    fresh: HeldOut | None = None,
    cap: int = PARAMETER_GOLF.total_bytes,
    proof: Proof = DEFAULT,
    bar: Bar = silent_bar,
) -> Facts:
    """Everything that rules look at; files that belong together are made sure of before the first process starts.

    scores: more scorers; the sliding score comes first in any case, and the penalty is about that.  A script that
    adapts by itself is scored so as well, and that score counts.
    checkpoint: float weights it was packed from; they are scored through the submission's own script.  read: opens it.
    fresh: another text of the kind, which the model cannot know.  cap: bytes.  proof: how much to spend on foresight.
    bar: label, total -> context manager that yields a progress callback.

    Raises: InputError when something is unreadable, does not belong together or does not run; LimitError at
    the time limit.
    """
    shipped = measure_folder(submission, cap, bar)
    check_same_tokenizer(submission, heldout)
    if fresh:
        refuse_shared(heldout.tokens, fresh.tokens)
    lossless = None
    if checkpoint:
        with bar("reading floats", 1) as progress:
            progress(0, "")
            lossless = _lossless(checkpoint, read, submission)
            progress(1, "")
    more = [kind for kind in dict.fromkeys(scores) if kind != "sliding"]
    with bar("scoring", _targets(heldout, fresh)) as progress:
        packed = reload(submission, submission.blob, heldout, settings, progress, later=more, fresh=fresh)
    settings = replace(settings, length=packed.length)
    look_again = partial(_look_again, submission, settings=settings, proof=proof, bar=bar)
    prefix = look_again(packed, heldout)
    strict = _strict(submission, packed, heldout, settings, proof, prefix.noise, bar) if proof.strict else None
    kinds: list[ScorerName] = ["own"] if packed.adapts else []
    kinds += [kind for kind in more if kind != "own"]
    adapted = [_adapted(kind, submission, heldout, settings, fresh, bar) for kind in kinds]
    own = next((each for each in adapted if each.score.scorer == "own"), None)
    if packed.adapts and (own is None or own.statement is None):
        raise InputError("adapts by itself in one process and not in another", where=str(submission.folder / MAIN))
    beside = [look_again(each, heldout) for each in adapted]
    beside += [look_again(each, fresh, fresh=True) for each in (packed, *adapted)] if fresh else []
    floats = None
    if lossless:
        with bar("scoring floats", heldout.targets) as progress:
            floats = reload(submission, lossless, heldout, settings, progress).score
    with bar("looking for known text", 1) as progress:
        progress(0, "")
        memorised, *others = [_memorised(each, heldout, fresh) for each in (packed, *(adapted if fresh else ()))]
        progress(1, "")
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
        own=OwnFacts(rescored=own, statement=own.statement) if own and own.statement else None,
        strict=strict,
        memorised=memorised,
        beside=tuple(beside),
        known=tuple(zip([each.score.scorer for each in adapted], others, strict=False)),
        floats=floats,
    )


def measure_folder(submission: Submission, cap: int = PARAMETER_GOLF.total_bytes, bar: Bar = silent_bar) -> Shipped:
    """What the folder shows before anything of it runs.  cap: bytes.  Raises: InputError as `byte_count.count`."""
    with bar("reading", 3) as progress:
        progress(0, "logs")
        logs = _logs(submission, cap)
        progress(1, "artifact")
        artifact = _artifact(submission)
        progress(2, "sources")
        scan = scan_submission(submission)
        progress(3, "")
    return Shipped(
        count=count(submission.folder, submission.artifact, cap, size(submission.given)),
        folder=_folder(submission),
        logs=logs,
        artifact=artifact,
        scan=scan,
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
    packed = {name: tuple(each["shape"]) for name, each in submission.state.items()}
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
        own_load=submission.own_load,
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
        state=submission.state,
        tokenizer_sha256=_tokenizer(submission),
    )


def _tokenizer(submission: Submission) -> str:
    return str(submission.meta.get("tokenizer_sha256") or "")


def _strict(
    submission: Submission,
    packed: Rescored,
    heldout: HeldOut,
    settings: Settings,
    proof: Proof,
    noise: float,
    bar: Bar,
) -> Strict:
    """Targets of the sliding score, from their prefixes alone."""
    start, run = partial(running, submission, submission.blob, settings), _run(packed.nats, heldout, settings)
    with bar("scoring from prefixes", min(proof.strict, heldout.targets)) as progress:
        found = score_alone(start, run, np.random.default_rng(), count=proof.strict, noise=noise, progress=progress)
        progress(min(proof.strict, heldout.targets), "")  # a script may refuse prefixes
    return found


def _run(nats: np.ndarray, text: HeldOut, settings: Settings) -> ScoredRun:
    windows = plan(text.targets, settings.length or 0, settings.stride)
    return ScoredRun(tokens=text.tokens, nats=nats, windows=windows, batch=settings.batch)


def _targets(heldout: HeldOut, fresh: HeldOut | None) -> int:
    return heldout.targets + (fresh.targets if fresh else 0)


def _memorised(packed: Rescored, heldout: HeldOut, fresh: HeldOut | None) -> Memorised:
    scored = ScoredText(nats=packed.nats, tokens=heldout.tokens, token_bytes=heldout.token_bytes)
    if fresh is None or packed.fresh_nats is None:
        return look(scored)
    return look(scored, ScoredText(nats=packed.fresh_nats, tokens=fresh.tokens, token_bytes=fresh.token_bytes))


def _adapted(
    kind: ScorerName, submission: Submission, heldout: HeldOut, settings: Settings, fresh: HeldOut | None, bar: Bar
) -> Rescored:
    with bar(f"scoring by {kind}", _targets(heldout, fresh)) as progress:
        return reload(submission, submission.blob, heldout, settings, progress, score=kind, fresh=fresh)


def _look_again(
    submission: Submission,
    scored: Rescored,
    text: HeldOut,
    *,
    settings: Settings,
    proof: Proof,
    bar: Bar,
    fresh: bool = False,
) -> Foresight:
    """What another process makes of a score.  fresh: of the fresh text.

    Reading ahead in fresh text would hide how well the other one is known.  There it is looked at as many rows as of
    that, so that what matters there is seen.
    """
    kind: Any = scored.score.scorer
    nats, exact = scored.fresh_nats if fresh else scored.nats, settings.device == "cpu"
    if not proof.share or nats is None:
        return Foresight(score=kind, fresh=fresh, exact=exact)
    run = _run(nats, text, settings)
    share = proof.share * max(1.0, scored.score.windows / len(run.windows))
    start, rng = partial(running, submission, submission.blob, settings), np.random.default_rng()
    total = row_count(run, share) if kind == "sliding" else text.targets
    how = "" if kind == "sliding" else f" by {kind}"
    with bar(f"looking for foresight{how}{' in the fresh text' * fresh}", total) as progress:
        common: dict[str, Any] = {"share": share, "exact": exact, "progress": progress}
        shape: dict[str, Any] = {"length": settings.length, "stride": settings.stride}
        if kind == "sliding":
            found = probe(start, run, rng, **common)
        elif scored.statement:
            own = OwnRun(tokens=text.tokens, nats=nats, statement=scored.statement, batch=settings.batch, **shape)
            found = probe_own(start, own, rng, **common)
        else:
            found = probe_adapted(start, kind, run, settings.adaptation, rng, **shape, **common)
        progress(total, "")
    return replace(found, fresh=fresh)
