"""What is measured of one submission, before anything is judged."""

import math
from dataclasses import dataclass
from typing import Any

from codec.measurement.foreign import State
from verify.claims.group_rules import GroupFacts
from verify.foresight.probe import Foresight
from verify.foresight.strict import Strict
from verify.memorisation import Memorised
from verify.rescore import Rescored
from verify.reveal.stretches import OwnStatement
from verify.sandbox.launch import Settings
from verify.scoring.score import Score
from verify.submission.byte_count import ByteCount
from verify.submission.run_settings import fit
from verify.submission.static_scan import Scan


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFacts:
    """unexpected: names of files that are neither counted, usual nor tolerated.  claims: submission.json, as it is.

    environment: settings that the README's or a log's run command states; stated_in: the name of that file, or "".
    own_load: whether the script has a `load`, so that they do not reach it.
    """

    unexpected: tuple[str, ...]
    script_sha256: str
    claims: dict[str, Any]
    environment: dict[str, str]
    stated_in: str
    own_load: bool = False

    @property
    def reaching(self) -> dict[str, str]:
        """The stated settings that reach the script."""
        return {} if self.own_load or not fit(self.environment) else self.environment


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsFacts:
    """What the folder's logs and its submission.json say; None without a log that holds a score.

    error: why no log could be read, or "".
    """

    group: GroupFacts | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFacts:
    """The weights' file; size in bytes, 0 when it is not here.

    foreign: what it looks like if it is not of this toolkit, else "".
    state: of the tensors decoded here; {} for a foreign one.  tokenizer_sha256: of the tokenizer it names, or "".
    """

    name: str
    size: int
    sha256: str
    foreign: str
    state: State
    tokenizer_sha256: str

    @property
    def weights(self) -> int:
        """Elements of all tensors."""
        return sum(math.prod(tensor["shape"]) for tensor in self.state.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts:
    """The held-out text that is scored: targets of the shard_targets it has.  proof, unproven: see `HeldOut`."""

    targets: int
    shard_targets: int
    proof: dict[str, int]
    unproven: str = ""
    tokenizer_sha256: str

    @property
    def partial(self) -> bool:
        """Whether only the first targets are scored."""
        return self.targets < self.shard_targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What a folder shows before anything of it runs."""

    count: ByteCount
    folder: FolderFacts
    logs: LogsFacts
    artifact: ArtifactFacts
    scan: Scan


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFacts:
    """The score by the script's own adaptation, and what it states about it."""

    rescored: Rescored
    statement: OwnStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(Shipped):
    """All that rules may look at.  settings: as scored, with the length of the windows.

    packed: the sliding score, which the penalty is about.  adapted: the scores after it, each of a process of its own.
    own: of them the one by the script's own adaptation, if it has one.
    prefix: the scored windows with other text behind a cut; beside: those of other scores, and of the fresh text.
    strict: targets scored from their prefixes alone, if asked for.  floats: of the checkpoint it was packed from, when
    there is one.  memorised: what the losses of the targets say of knowing the text; None when nobody looked; known: of
    other scores, by their names.
    """

    settings: Settings
    text: TextFacts
    packed: Rescored
    adapted: tuple[Rescored, ...]
    prefix: Foresight
    strict: Strict | None
    floats: Score | None
    own: OwnFacts | None = None
    memorised: Memorised | None = None
    beside: tuple[Foresight, ...] = ()
    known: tuple[tuple[str, Memorised], ...] = ()

    @property
    def headline(self) -> Score:
        """The score that counts: by the script's own adaptation where it has one, else by fixed weights."""
        return self.own.rescored.score if self.own else self.packed.score
