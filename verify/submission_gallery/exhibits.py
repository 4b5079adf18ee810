"""Cheating submissions: folders that `pgolf verify` must fail, and honest ones that it must pass.

@folder_exhibit("paid prefix", "score.memorised")
def paid_prefix(folder, stage): ...      # what is done to the honest submission that lies in folder

`FOLDERS` holds them; `verify_folders` plays them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from codec.errors import PgolfError, UsageError
from codec.progress import Progress
from verify.pipeline import examine
from verify.rules import find
from verify.submission.folder import Submission
from verify.submission_gallery.stage import SETTINGS, Stage, build_stage
from verify.verdict import Verdict

Change = Callable[[Path, Stage], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderExhibit:
    """One folder.  story: what it does.  change: does it, to an honest submission.

    caught_by: the rules that must fail; empty for an honest folder.  refused: it is no submission at all, and opening
    it raises one sentence.  arguments: more keyword arguments of `verify.pipeline.examine`, made from the stage.
    """

    name: str
    story: str
    change: Change
    caught_by: tuple[str, ...] = ()
    refused: bool = False
    arguments: Callable[[Stage], Mapping[str, Any]] = lambda stage: {}

    @property
    def cheats(self) -> bool:
        """Whether verify must not let it pass."""
        return self.refused or bool(self.caught_by)


FOLDERS: dict[str, FolderExhibit] = {}  # by name, in the order of registration


def folder_exhibit(
    name: str,
    *caught_by: str,
    refused: bool = False,
    arguments: Callable[[Stage], Mapping[str, Any]] = lambda stage: {},
) -> Callable[[Change], Change]:
    """Register a change of the honest submission; its docstring is the story.

    Raises: UsageError when the name is taken, or the table has no such rule.
    """

    def register(change: Change) -> Change:
        if name in FOLDERS:
            raise UsageError(f"the gallery has a folder `{name}` already")
        FOLDERS[name] = FolderExhibit(
            name=name,
            story=" ".join((change.__doc__ or "").split()),
            change=change,
            caught_by=tuple(find(rule).id for rule in caught_by),
            refused=refused,
            arguments=arguments,
        )
        return change

    return register


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What verify said of a folder: its verdict, or the sentence it was refused with."""

    verdict: Verdict | None
    refusal: str = ""

    @property
    def failed(self) -> tuple[str, ...]:
        """The rules that fail."""
        findings = self.verdict.findings if self.verdict else ()
        return tuple(dict.fromkeys(finding.rule for finding in findings if finding.level == "fail"))

    @property
    def warned(self) -> tuple[str, ...]:
        """The rules that warn."""
        findings = self.verdict.findings if self.verdict else ()
        return tuple(dict.fromkeys(finding.rule for finding in findings if finding.level == "warn"))


def verify_folders(
    exhibits: Sequence[FolderExhibit] | None = None, progress: Progress | None = None
) -> dict[str, Played]:
    """Verify folders as `pgolf verify` does, by name; without any, all.  progress: gets how many are done, the next."""
    exhibits = tuple(FOLDERS.values()) if exhibits is None else exhibits
    played = {}
    with TemporaryDirectory(prefix="pgolf-gallery-") as place:
        if progress:
            progress(0, "an honest submission")
        stage = build_stage(Path(place))
        for number, exhibit in enumerate(exhibits):
            if progress:
                progress(number, exhibit.name)
            folder = Path(place) / f"submission-{number}"
            stage.write(folder)
            exhibit.change(folder, stage)
            played[exhibit.name] = _play(exhibit, folder, stage)
    return played


def misjudged(exhibit: FolderExhibit, played: Played) -> list[str]:
    """What verify got wrong: rules that missed a cheat, or that accused (a warning included) an honest folder."""
    if exhibit.refused:
        return [] if played.refusal else ["not refused"]
    if played.refusal:
        return [played.refusal]
    if exhibit.caught_by:
        return [rule for rule in exhibit.caught_by if rule not in played.failed]
    return [*played.failed, *played.warned]


def _play(exhibit: FolderExhibit, folder: Path, stage: Stage) -> Played:
    try:
        verdict = examine(Submission.open(folder), stage.heldout, **{"settings": SETTINGS, **exhibit.arguments(stage)})
    except PgolfError as error:
        return Played(verdict=None, refusal=error.message)
    return Played(verdict=verdict)
