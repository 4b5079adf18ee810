"""Runs a submission's model in a sandboxed process of its own, and scores it from outside.

The process is sent windows of ids and answers with logits; the tokens, the sum of nats and the count of bytes stay
here.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from codec.errors import InputError
from codec.measurement.foreign import State  # tensor -> its dtype, shape and sha256
from codec.progress import Progress
from verify.memorisation import Watched
from verify.reveal.stretches import OwnStatement
from verify.sandbox.launch import Settings, running
from verify.sandbox.remote_scorers import scorer_of
from verify.scoring.adaptation import ScorerName
from verify.scoring.heldout import HeldOut
from verify.scoring.score import Score, total
from verify.scoring.token_bytes import TokenBytes
from verify.submission.folder import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """state: of the loaded module.  length: of the windows that were scored, in tokens.

    notes: how the adapter of the seed family loaded it, () by the script's own `load`.  missing: what the sandbox could
    not enforce.  attempts: what it refused.  loading: seconds until the model was there.  nats, fresh_nats: float32
    (targets,), of the text and of the fresh one, None without it.  adapts: the script can by itself; statement: how it
    did, if this is the score by that.
    """

    score: Score
    state: State
    length: int
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    attempts: tuple[str, ...]
    loading: float
    nats: np.ndarray
    fresh_nats: np.ndarray | None = None
    adapts: bool = False
    statement: OwnStatement | None = None


def reload(
    submission: Submission,
    artifact: bytes,
    heldout: HeldOut,
    settings: Settings,
    progress: Progress | None = None,
    *,
    score: ScorerName = "sliding",
    later: Sequence[ScorerName] = (),
    fresh: HeldOut | None = None,
) -> Rescored:
    """Load `artifact` by the submission's script in a fresh, sandboxed `python -I` process and score it from here.

    The process sees a copy of the counted files only: what is not counted cannot be used.  score: by which scorer; it
    finds the weights as they were loaded, since the process is its own.  later: by which scorers it is to be scored
    next; what they lack is told before the time for this one is spent.  fresh: another text, which the same process
    scores next.  progress: told the targets of both.

    Raises: as `running`; InputError when nobody says how long the windows are, or the model lacks what a scorer needs;
    UsageError for a bad stride or chunk.
    """
    table, started = TokenBytes.from_tokenizer(heldout.tokenizer), time.perf_counter()
    with running(submission, artifact, settings) as model:
        loading = time.perf_counter() - started
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
        watched = Watched(scorer, heldout.targets)
        found = total(watched, heldout.tokens, heldout.token_bytes, batch=settings.batch, progress=progress)
        again = Watched(make(score, targets=fresh.targets), fresh.targets) if fresh else None
        if fresh and again:
            after = partial(_after, progress, heldout.targets) if progress else None
            total(again, fresh.tokens, fresh.token_bytes, batch=settings.batch, progress=after)
        model.refresh()
        return Rescored(
            score=found,
            state=model.state,
            length=length,
            notes=tuple(model.notes),
            missing=tuple(model.missing),
            attempts=tuple(model.attempts),
            loading=loading,
            nats=watched.nats,
            fresh_nats=again.nats if again else None,
            adapts=model.adapts,
            statement=model.statement if score == "own" else None,
        )


def _after(progress: Progress, before: int, done: int, note: str) -> None:
    progress(before + done, f"fresh text, {note}")
