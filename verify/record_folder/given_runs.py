"""What RUN... hold: logs of several seeds, the script that ran, an artifact, and what people say of them.

A RUN is a log, or a folder: of one run (train_gpt.py, model.bin, train.log), of `pgolf pack`, or of anybody's record.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codec.errors import InputError, UsageError
from codec.storage.atomic_files import read_bytes
from verify.claims.group_rules import check_group
from verify.claims.log_reader import Log
from verify.claims.runs import Group, Run, read_group
from verify.claims.submission_json import Statement, artifact_seed
from verify.claims.write_submission_json import PLACE, WORDS
from verify.finding import Finding
from verify.folder_rules import compare_files
from verify.submission import run_settings
from verify.submission.byte_count import LARGEST, MAIN, import_closure
from verify.submission.folder import find_artifact

REQUIREMENTS = "requirements.txt"
OF_SEED = re.compile(r"(\d{1,19})=(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Packed weights.  seed: of the run that made them, None when its log names none."""

    name: str
    data: bytes
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRuns:
    """logs: by seed.  code: name -> content of train_gpt.py and of what it imports.

    artifact: of the run with the best score among those that have one.  said: author, date and the like, None where
    nobody says.  requirements: what lies beside the script, None without.  environment: settings of the run command
    that all runs share.  failed: what fails in the runs as they were given.  notes: what was left out.
    """

    logs: tuple[Log, ...]
    code: dict[str, bytes]
    artifact: Artifact | None
    said: dict[str, str | None]
    requirements: bytes | None
    environment: dict[str, str]
    failed: tuple[Finding, ...]
    notes: tuple[str, ...]


def read_runs(
    paths: Sequence[Path],
    *,
    cap: int,
    script: Path | None = None,
    artifact: str = "",
    said: Mapping[str, str | None] | None = None,
) -> GivenRuns:
    """Read everything that a record is made of, before anything is written.

    cap: bytes.  script: instead of what the folders hold.  artifact: the same, `FILE` or `SEED=FILE`.  said: what goes
    before what the folders' submission.json say.

    Raises: InputError when a file is unreadable, a log has no score, or two submission.json say different things;
    UsageError when there is no script, or nothing tells whose the artifact is.
    """
    groups, notes = _read(paths)
    logs = sorted(
        (log for group in groups for log in group.logs), key=lambda log: (log.seed is not None, log.seed or 0)
    )
    folders = [(path, group) for path, group in zip(paths, groups, strict=True) if path.is_dir()]
    code, home, failed = _code(script, [path for path, _ in folders])
    size = sum(map(len, code.values()))
    for group in groups:
        if group.statement:
            failed += [finding for finding in check_group(group, cap) if finding.level == "fail"]
    found = [_named_artifact(artifact, logs)] if artifact else [_artifact(path, group, logs) for path, group in folders]
    artifacts = [each for each in found if each]
    for each in artifacts:
        finding = compare_files(logs, size, len(each.data), each.seed, cap)
        failed += [finding] if finding and finding.level == "fail" else []
    bpb = {log.seed: Run.of_log(log).bpb for log in logs}
    wishes = home / REQUIREMENTS
    return GivenRuns(
        logs=tuple(logs),
        code=code,
        artifact=min(artifacts, key=lambda each: (bpb.get(each.seed, math.inf), each.seed or 0), default=None),
        said=_said(said or {}, [group.statement for group in groups if group.statement]),
        requirements=wishes.read_bytes() if wishes.is_file() else None,  # one without a line is one too
        environment=_environment(paths),
        failed=tuple(failed),
        notes=tuple(notes),
    )


def _read(paths: Sequence[Path]) -> tuple[list[Group], list[str]]:
    """The runs of each path; a log that is a copy of another in its folder (often train.log is) is left out."""
    groups, notes, seen = list[Group](), list[str](), dict[tuple[Path, str], Path]()
    for path in paths:
        group = read_group([path])
        if not group.logs:
            raise InputError(
                "holds no log with a score, and a record is made from logs", where=str(path), hint="add the logs"
            )
        notes += group.notes
        kept: list[tuple[Log, Run]] = []
        for log, run in zip(group.logs, group.runs, strict=True):
            place = log.path.parent, hashlib.sha256(read_bytes(log.path)).hexdigest()
            first = seen.setdefault(place, log.path)
            if first == log.path:
                kept.append((log, run))
            else:
                notes.append(f"{log.path} is {first.name} again and is left out")
        notes += [f"{each} holds no score and is left out" for each in group.skipped]
        groups.append(replace(group, logs=tuple(log for log, _ in kept), runs=tuple(run for _, run in kept)))
    return groups, notes


def _code(script: Path | None, folders: list[Path]) -> tuple[dict[str, bytes], Path, list[Finding]]:
    """(name -> content, the folder it is from, what fails)."""
    if script:
        read_bytes(script, LARGEST)
        return _with_siblings(script.parent, script.name), script.parent, []
    homes = [folder for folder in folders if (folder / MAIN).is_file()]
    if not homes:
        raise UsageError(f"no folder of a run holds {MAIN}", hint="--script FILE names the script that ran")
    first = _with_siblings(homes[0], MAIN)
    others = [folder for folder in homes[1:] if _with_siblings(folder, MAIN) != first]
    if not others:
        return first, homes[0], []
    message = f"not seeds of one script: {MAIN} of {others[0].name} is not that of {homes[0].name}"
    return first, homes[0], [Finding(rule="log.settings", level="fail", message=message)]


def _with_siblings(folder: Path, main: str) -> dict[str, bytes]:
    """The script as train_gpt.py, and the local code it imports or opens by name."""
    code = {}
    for path in import_closure(folder, main):
        if not path.is_relative_to(folder) or ".." in path.relative_to(folder).parts:
            raise InputError(
                f"imports {path.name} from outside its folder",
                where=str(folder / main),
                hint="put it beside the script, or wrap both into one file",
            )
        name = path.relative_to(folder).as_posix()
        if name == MAIN != main:
            raise InputError(
                f"is imported by {main}, which becomes {MAIN} in a record", where=str(path), hint=f"rename {main} or it"
            )
        code[MAIN if name == main else name] = path.read_bytes()
    return code


def _artifact(folder: Path, group: Group, every: Sequence[Log]) -> Artifact | None:
    """What lies in the folder.  every: log of all runs, for a folder whose own were named before it."""
    logs = group.logs or every
    raw = group.statement.raw if group.statement else {}
    path = find_artifact(folder, raw)
    if path is None or not path.exists():
        return None
    stated = artifact_seed(raw)
    return _of_seed(path, logs, logs[0].seed if len(logs) == 1 else stated)


def _named_artifact(text: str, logs: Sequence[Log]) -> Artifact:
    """FILE, or SEED=FILE."""
    named = None if Path(text).exists() else OF_SEED.fullmatch(text)
    if named and int(named[1]) not in [log.seed for log in logs]:
        raise UsageError(f"--artifact is said to be of seed {named[1]}, of which there is no log")
    return _of_seed(Path(named[2] if named else text), logs, int(named[1]) if named else None)


def _of_seed(path: Path, logs: Sequence[Log], seed: int | None) -> Artifact:
    """The artifact of that seed; without one, of the only log that counts as many bytes."""
    data = read_bytes(path, LARGEST)
    if seed is None:
        alike = [log.seed for log in logs if log.sizes.model == len(data)]
        if len(logs) != 1 and len(alike) != 1:
            have = f"{len(alike)} of {len(logs)} logs count" if alike else f"none of {len(logs)} logs counts"
            raise UsageError(
                f"has {len(data):,} bytes, {have} a model of that size, so that nothing tells whose it is",
                where=str(path),
                hint="--artifact SEED=FILE says so",
            )
        seed = alike[0] if len(alike) == 1 else logs[0].seed
    return Artifact(name=path.name, data=data, seed=seed)


def _said(given: Mapping[str, str | None], statements: Sequence[Statement]) -> dict[str, str | None]:
    """Words given now, else those of the earlier files; where two of these differ on the machine, nothing is said."""
    said: dict[str, str | None] = {}
    for key in (*WORDS, *PLACE):
        texts = {each.raw[key]: each.path for each in statements if isinstance(each.raw.get(key), str)}
        if len(texts) > 1 and key in WORDS and given.get(key) is None:
            (one, first), (two, second) = [*texts.items()][:2]
            raise InputError(
                f"says {key} {two!r}, {first} says {one!r}",
                where=str(second),
                hint=f"--{key.replace('_', '-')} says which",
            )
        said[key] = given.get(key) or (next(iter(texts)) if len(texts) == 1 else None)
    return said


def _environment(paths: Sequence[Path]) -> dict[str, str]:
    """What the run commands in README or log assign alike; a seed of its own is no setting."""
    stated = [run_settings.settings(path)[0] if path.is_dir() else run_settings.stated([path])[0] for path in paths]
    first, *others = stated
    return {
        name: value
        for name, value in first.items()
        if name != "SEED" and all(each.get(name) == value for each in others)
    }
