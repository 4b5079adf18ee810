"""Runs a submission's model in a sandboxed process of its own, and scores it from outside.

The process is sent windows of ids and answers with logits; the tokens, the sum of nats and the count of bytes stay
here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from codec.errors import InputError, printable
from verify.finding import Finding
from verify.sandbox.launch import Settings, running
from verify.sandbox.remote_model import Remote
from verify.sandbox.remote_scorers import scorer_of
from verify.scoring.adaptation import Kind
from verify.scoring.heldout import HeldOut
from verify.scoring.reservoir import Sample
from verify.scoring.score import Score, total
from verify.scoring.token_bytes import TokenBytes
from verify.submission.folder import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """state: per tensor of the loaded module its dtype, shape and sha256.  length: of the windows that were scored.

    findings: how it was loaded, whether the sandbox was whole, what it refused.
    """

    score: Score
    state: dict[str, dict[str, Any]]
    length: int
    findings: tuple[Finding, ...]


def reload(
    submission: Submission,
    artifact: bytes,
    heldout: HeldOut,
    settings: Settings,
    progress: Callable[[int, str], None] | None = None,
    *,
    score: Kind = "sliding",
    later: Sequence[Kind] = (),
    sample: Sample | None = None,
) -> Reloaded:
    """Load `artifact` by the submission's script in a fresh, sandboxed `python -I` process and score it from here.

    The process sees a copy of the counted files only: what is not counted cannot be used.  score: by which scorer; it
    finds the weights as they were loaded, since the process is its own.  later: by which scorers it is to be scored
    next; what they lack is told before the time for this one is spent.  sample: gets some of the batches.

    Raises: as `running`; InputError when nobody says how long the windows are, or the model lacks what a scorer needs;
    UsageError for a bad stride or chunk.
    """
    table = TokenBytes.from_tokenizer(heldout.tokenizer)
    with running(submission, artifact, settings) as model:
        length = settings.length or model.length
        if not length:
            raise InputError("says nowhere how long its windows are", where=str(submission.folder), hint="--seq-len N")
        make = partial(
            scorer_of,
            model=model,
            adaptation=settings.adaptation,
            vocab_size=len(table.length),
            targets=heldout.targets,
            length=length,
            stride=settings.stride,
        )
        scorer, *_ = [make(kind) for kind in (score, *later)]
        scorer = sample.of(scorer) if sample else scorer
        found = total(scorer, heldout.tokens, table.of(heldout.tokens), batch=settings.batch, progress=progress)
        model.refresh()
        findings = (_protocol(model, submission, settings), _whole(model), _refused(model))
        return Reloaded(score=found, state=model.state, length=length, findings=findings)


def _protocol(model: Remote, submission: Submission, settings: Settings) -> Finding:
    if not model.notes:
        return Finding(
            rule="reload.protocol", level="pass", message="loaded by the script's `load(artifact_path, device)`"
        )
    environment = {**submission.environment, **settings.environment}
    given = " ".join(f"{name}={value}" for name, value in environment.items()) or "no settings"
    stated = f", as {submission.stated_in} states" if submission.stated_in and not settings.environment else ""
    return Finding(
        rule="reload.protocol",
        level="warn",
        message=f"no `load`, so the adapter of the seed family ran it in float32 with exact attention: "
        f"{'; '.join(model.notes)}; environment: {printable(given, 300)}{stated}",
        evidence={"notes": model.notes, "environment": environment, "stated_in": submission.stated_in},
    )


def _whole(model: Remote) -> Finding:
    if not model.missing:
        message = "network, processes, files, memory and time of the script were limited by the kernel"
        return Finding(rule="sandbox.missing", level="pass", message=message)
    return Finding(
        rule="sandbox.missing",
        level="unknown",
        message=f"the script ran without these limits: {'; '.join(model.missing)}",
        evidence={"missing": model.missing},
    )


def _refused(model: Remote) -> Finding:
    if not model.attempts:
        message = "nothing that the sandbox refuses was noted"
        return Finding(rule="sandbox.attempts", level="pass", message=message)
    return Finding(
        rule="sandbox.attempts",
        level="fail",
        message=f"the sandbox refused what the script tried: {'; '.join(model.attempts)[:500]}",
        evidence={"attempts": model.attempts},
    )
