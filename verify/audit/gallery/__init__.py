"""The gallery: small scorers that cheat, and small ones that do not; run by the audit they show what it catches.

It is also the documentation of what is forbidden.  The text and model are toys, the procedures are those of real
submissions.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from codec.progress import Progress
from verify.audit.fresh_process import ScorerJob, load_module, observe
from verify.audit.gallery import cheats, honest  # noqa: F401  they register their exhibits
from verify.audit.gallery.exhibits import EXHIBITS, Exhibit, find_exhibit
from verify.audit.gallery.toy import CHUNK, HELD_OUT, LENGTH, STRIDE, Model, Procedure, stream, target_bytes
from verify.audit.perturbations import Scope
from verify.audit.runner import Audit, audit
from verify.audit.trace import trace
from verify.scoring.scorer import Scorer

SCOPE = Scope(batch=4, ranks=2, periods=(STRIDE, LENGTH, CHUNK), cuts=40, sums=6, coded=48)


def build(name: str, folder: str, source: str = "") -> Scorer:
    """The scorer of an exhibit.  folder: holds the text as a file, for the one that reads it.

    source: the file that registers it, for a process that has not loaded it yet.
    """
    if name not in EXHIBITS and source:
        load_module(source)
    return Procedure(name, find_exhibit(name).make(Path(folder)))


def audit_all(exhibits: Sequence[Exhibit] | None = None, progress: Progress | None = None) -> dict[str, Audit]:
    """Audit exhibits, by name; without any, all.  progress: gets how many are done, and the name of the next."""
    exhibits = tuple(EXHIBITS.values()) if exhibits is None else exhibits
    tokens, found = stream(), {}
    with TemporaryDirectory(prefix="pgolf-gallery-") as folder:
        tokens.tofile(Path(folder) / HELD_OUT)
        jobs = [
            ScorerJob(
                scorer=f"{__name__}:build",
                arguments=(exhibit.name, folder, str(exhibit.source)),
                allowed=(exhibit.source,),
            )
            for exhibit in exhibits
        ]
        if progress:
            progress(0, "all of them in a fresh process")
        observed = observe(jobs, tokens, batch=SCOPE.batch)
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
