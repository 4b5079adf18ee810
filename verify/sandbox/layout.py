"""Lays out what a submission's process sees: the counted bytes, and nothing about their files that nobody counts."""

import os
from dataclasses import dataclass
from pathlib import Path

from verify.submission.byte_count import MAIN
from verify.submission.folder import ARTIFACT, Submission

WHEN = 946_684_800  # the time of every file, 2000-01-01 UTC: archives have none before 1980
FILE_MODE, FOLDER_MODE = 0o644, 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """script, artifact: where the process finds them."""

    script: Path
    artifact: Path


def lay_out(submission: Submission, artifact: bytes, scratch: Path) -> Layout:
    """Write the counted files and the artifact below scratch, in the order of their names.

    Every file has the same mode and time, and bytes of its own: no holes, no links, no attributes.  The artifact has
    the same name whatever it is called in the folder.
    """
    copy = scratch / "submission"
    contents = {path.relative_to(submission.folder).as_posix(): path for path in submission.code}
    for name in sorted(contents):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents[name].read_bytes())
    (copy / ARTIFACT).write_bytes(artifact)
    for folder, _, names in os.walk(copy, topdown=False):
        for name in names:
            os.chmod(os.path.join(folder, name), FILE_MODE)
            os.utime(os.path.join(folder, name), (WHEN, WHEN))
        os.chmod(folder, FOLDER_MODE)
        os.utime(folder, (WHEN, WHEN))
    return Layout(script=copy / MAIN, artifact=copy / ARTIFACT)
