"""The gallery: small scorers that cheat, and small ones that do not; run by the audit they show what it catches.

It is also the documentation of what is forbidden.  The text and model are toys, the procedures are those of real
submissions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from codec.errors import InputError
from codec.progress import Progress
from verify.audit.fresh_process import Errand, observe
from verify.audit.gallery import cheats, honest
from verify.audit.gallery.toy import CHUNK, LENGTH, STRIDE, Model, Procedure, Steps, stream, target_bytes
from verify.audit.perturbations import Scope
from verify.audit.runner import Audit, audit
from verify.audit.trace import trace
from verify.scoring.scorer import Scorer

SCOPE = Scope(batch=4, ranks=2, periods=(STRIDE, LENGTH, CHUNK), cuts=40, sums=6, coded=48)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """One scorer.  story: what it does.  make: gets the folder that holds the text, gives the scorer's steps.

    caught_by: the rules that must find it; empty for an honest one.  counted: tokens -> its bytes of each target.
    used: the scorer has run before it is audited, as in a script that evaluates in several ways.
    """

    name: str
    story: str
    make: Callable[[Path], Steps]
    caught_by: tuple[str, ...] = ()
    counted: Callable[[np.ndarray], np.ndarray] = target_bytes
    used: bool = False


def _exhibit(name: str, steps: Steps, *caught_by: str) -> Exhibit:
    return Exhibit(name=name, story=_story(steps), make=lambda folder: steps, caught_by=caught_by)


def _story(function: Callable[..., object]) -> str:
    return " ".join((function.__doc__ or "").split())


HONEST = (
    _exhibit("sliding", honest.sliding),
    _exhibit("score-first training", honest.score_first),
    _exhibit("SLOT per window, context only", honest.row_slot),
    _exhibit("training inside documents", honest.document_reset),
    _exhibit("normalized n-gram mixture", honest.mixture),
)
CHEATS = (
    _exhibit("look-ahead statistics", cheats.look_ahead, "audit.prefix"),
    _exhibit("train, then score", cheats.train_first, "audit.prefix", "audit.state"),
    _exhibit("two passes", cheats.two_pass, "audit.prefix"),
    _exhibit("best of the epochs", cheats.best_epoch, "audit.prefix", "audit.kraft"),
    _exhibit("hint gated by the target", cheats.gated_hint, "audit.self_target", "audit.kraft"),
    _exhibit("n-gram cache for the target only", cheats.gold_only, "audit.kraft"),
    _exhibit("SLOT of pull request 1176", cheats.slot_after_training, "audit.prefix", "audit.self_target"),
    _exhibit("SLOT shared in a batch", cheats.batch_slot, "audit.prefix", "audit.self_target"),
    _exhibit("tail counted again", cheats.tail_again, "audit.coverage"),
    _exhibit("targets left out", cheats.skipping, "audit.coverage"),
    Exhibit(
        name="wrong byte table",
        story=_story(cheats.spaces_twice),
        make=lambda folder: honest.sliding,
        caught_by=("audit.bytes",),
        counted=cheats.spaces_twice,
    ),
    Exhibit(
        name="cache between runs",
        story=_story(cheats.remembering),
        make=lambda folder: cheats.remembering(),
        caught_by=("audit.determinism",),
    ),
    Exhibit(
        name="validation file opened",
        story=_story(cheats.reading),
        make=cheats.reading,
        caught_by=("audit.side_channel",),
    ),
    Exhibit(
        name="adapted while loading",
        story=_story(cheats.adapted),
        make=lambda folder: cheats.adapted(),
        caught_by=("audit.state",),
    ),
    Exhibit(
        name="model left over",
        story=_story(cheats.left_over),
        make=lambda folder: cheats.left_over(),
        caught_by=("audit.state", "audit.fresh_process"),
        used=True,
    ),
    _exhibit("document lengths", cheats.document_lengths, "audit.structure"),
    _exhibit("shortest document first", cheats.shortest_first, "audit.prefix", "audit.coverage", "audit.structure"),
    _exhibit("not normalized", cheats.flattened, "audit.normalization", "audit.kraft"),
)
EXHIBITS = {exhibit.name: exhibit for exhibit in (*HONEST, *CHEATS)}


def build(name: str, folder: str) -> Scorer:
    """The scorer of an exhibit.  folder: holds the text as a file, for the one that reads it."""
    if name not in EXHIBITS:
        raise InputError(f"there is no exhibit `{name}`", hint=f"there are {', '.join(EXHIBITS)}")
    return Procedure(name, EXHIBITS[name].make(Path(folder)))


def audit_all(
    exhibits: Sequence[Exhibit] = tuple(EXHIBITS.values()), progress: Progress | None = None
) -> dict[str, Audit]:
    """Audit exhibits, by name.  progress: gets how many are done, and the name of the next."""
    tokens, found = stream(), {}
    with TemporaryDirectory(prefix="pgolf-gallery-") as folder:
        tokens.tofile(Path(folder) / cheats.HELD_OUT)
        errands = [Errand(scorer=f"{__name__}:build", arguments=(exhibit.name, folder)) for exhibit in exhibits]
        observed = observe(errands, tokens, batch=SCOPE.batch)
        for number, (exhibit, observation) in enumerate(zip(exhibits, observed, strict=True)):
            if progress:
                progress(number, exhibit.name)
            scorer = build(exhibit.name, folder)
            if exhibit.used:
                trace(scorer, tokens, batch=SCOPE.batch)
            found[exhibit.name] = audit(
                scorer,
                tokens,
                SCOPE,
                artifact_digest=Model().digest(),
                observed=observation,
                counted=exhibit.counted(tokens),
                proven=target_bytes(tokens),
            )
    return found
