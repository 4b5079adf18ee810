"""Paths -> the facts of a report."""

from collections.abc import Sequence
from pathlib import Path

from codec.progress import Bar, silent_bar
from pgolf.report.facts import Report, Subject
from pgolf.report.options import Kind, Options, check_options, kind_of, subject_name
from pgolf.report.runs import runs_subject
from pgolf.report.subjects import artifact_subject, checkpoint_subject, submission_subject


def gather(paths: Sequence[Path], options: Options, bar: Bar = silent_bar) -> Report:
    """The facts of all paths: checkpoints, artifacts and submissions in their order, then runs.

    Logs and folders of runs without a submission.json are runs of one recipe; a folder with one is a recipe of its own.
    Raises: UsageError for options that fit no path, or more than one; what reading a path raises.
    """
    kinds = [(path, kind_of(path)) for path in paths]
    check_options(kinds, options)
    subjects = [_subject(path, kind, options, bar) for path, kind in kinds if kind != "runs"]
    subjects += _runs([path for path, kind in kinds if kind == "runs"], options, bar)
    things = "recipes" if all(each.kind == "runs" for each in subjects) else "subjects"
    title = subjects[0].name if len(subjects) == 1 else f"{len(subjects)} {things} side by side"
    return Report(title=title, subjects=tuple(subjects))


def _subject(path: Path, kind: Kind, options: Options, bar: Bar) -> Subject:
    if kind == "submission":
        return submission_subject(path, options, bar)
    return artifact_subject(path, options, bar) if kind == "artifact" else checkpoint_subject(path, options, bar)


def _runs(paths: list[Path], options: Options, bar: Bar) -> list[Subject]:
    from verify.claims.runs import STATED, read_group

    own = [path for path in paths if path.is_dir() and (path / STATED).is_file()]
    loose = [path for path in paths if path not in own]
    groups = ([loose] if loose else []) + [[path] for path in own]
    if not groups:
        return []
    subjects = []
    with bar("report runs", len(groups)) as step:
        for done, group in enumerate(groups):
            name = subject_name(group[0]) if len(group) == 1 else f"{len(group)} runs"
            step(done, name)
            subjects.append(runs_subject(read_group(group), name, options.cap, options.against))
        step(len(groups), "")
    return subjects
