"""Writes the folder of a record, judges what it has written, and says so in its README.

The rules are those of `pgolf compare` and of `pgolf verify`, as far as no model is run, asked of the very folder that
ships, before what they found is added to its submission.json.  No clock and no path enters any file of ours, so equal
inputs give equal folders.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codec.decoder import MAGIC
from codec.errors import LimitError, PgolfError, UsageError, printable
from codec.measurement.byte_ledger import ledger, of_submission
from codec.storage.atomic_files import read_bytes
from verify.claims.group_rules import check_group, group_judges
from verify.claims.runs import Group, read_group
from verify.claims.significance import Comparison, SeedScores, compare
from verify.claims.write_submission_json import as_submission_json, seed_of
from verify.finding import Finding
from verify.folder_rules import compare_files, folder_judges, scan_findings
from verify.pipeline import measure_folder
from verify.record_folder.given_runs import REQUIREMENTS, Artifact, GivenRuns
from verify.record_folder.readme import Shown, record_page
from verify.record_folder.run_commands import run_commands
from verify.submission.byte_count import MAIN, SUMS
from verify.submission.folder import CLAIMS, Submission
from verify.submission.source_layers import LOADER, read_source, unwrap
from verify.submission.static_scan import scan_code

README, LEDGER = "README.md", "ledger.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the record is held against.  cap: bytes.  against: scores to beat, and how they were named, if any."""

    cap: int
    against: SeedScores | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRecord:
    """A record as it was written.  sums: name -> sha256 of every file but the list itself."""

    group: Group
    comparison: Comparison | None
    findings: tuple[Finding, ...]
    artifact: Artifact | None
    code_bytes: int
    sums: dict[str, str]


class RecordRefused(LimitError):
    """The challenge would refuse it: findings holds what fails, and all else that was found."""

    def __init__(self, findings: Sequence[Finding], hint: str = "") -> None:
        failed = dict.fromkeys(finding.rule for finding in findings if finding.level == "fail")
        super().__init__(f"refused, nothing is written: {', '.join(failed)}", hint=hint)
        self.findings = tuple(findings)


def write_record(
    given: GivenRuns, folder: Path, target: Target, requirements: Callable[[Mapping[str, bytes]], str]
) -> WrittenRecord:
    """Fill the empty `folder`.  requirements: code -> text of requirements.txt, asked when the runs have none.

    Raises: RecordRefused when a finding fails; InputError when a log has no score of a packed model, or the artifact
    is damaged; UsageError when two files would have one name.
    """
    logs = Group.of_logs(given.logs)
    _refuse_given(given, check_group(logs, target.cap))
    texts = {f"train_seed{seed_of(log)}.log": read_bytes(log.path) for log in given.logs}
    wishes = requirements(given.code).encode() if given.requirements is None else given.requirements
    _write(folder, [*given.code.items(), *texts.items(), (REQUIREMENTS, wishes), *_of_artifact(given)])
    claims = _claims(given)
    with _inside(folder):
        _claim(folder, logs, (), None, given, claims)  # judged with it, though not yet with its own levels
        group = read_group([folder])
        comparison = compare(group.sample, target.against, group.bpb_per_nat) if target.against else None
        shown = _shown(given, group, comparison, target)
        page = record_page(shown, ())
        (folder / README).write_bytes(page.encode())  # the settings of its run command are counted bytes
        of_files = _judged(given, folder, group, target.cap)
        findings = (*check_group(group, target.cap, comparison), *of_files)
        _refuse(findings)
        _claim(folder, group, findings, comparison, given, claims)
        spoken = replace(group, readme=page)  # claims.significance reads it
        findings = (*check_group(spoken, target.cap, comparison), *of_files)
    (folder / README).write_bytes(record_page(shown, findings).encode())
    sums = sums_of(folder)
    (folder / SUMS).write_bytes(_listed(sums))
    return WrittenRecord(
        group=group,
        comparison=comparison,
        findings=findings,
        artifact=given.artifact,
        code_bytes=sum(map(len, given.code.values())),
        sums=sums,
    )


def sums_of(folder: Path) -> dict[str, str]:
    """Name -> sha256 of every file below the folder but the list itself, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {name: found[name] for name in sorted(found) if name != SUMS}


def is_record(folder: Path) -> bool:
    """Whether the folder is one that `write_record` filled, and as it was then: no file more, less or changed."""
    if not all((folder / name).is_file() for name in (SUMS, CLAIMS, README, MAIN)):
        return False
    return (folder / SUMS).read_bytes() == _listed(sums_of(folder))


def _listed(sums: Mapping[str, str]) -> bytes:
    """As `sha256sum -c` reads it."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()).encode()


def _of_artifact(given: GivenRuns) -> list[tuple[str, bytes]]:
    """The artifact, and what each byte of ours is for."""
    artifact = given.artifact
    if artifact is None:
        return []
    if not artifact.data.startswith(MAGIC[:3]):
        return [(artifact.name, artifact.data)]
    modules = [layer.name for layer in unwrap(read_source(given.code[MAIN])) if layer.name not in ("", LOADER)]
    with _named(artifact.name):
        costs = of_submission(ledger(artifact.data), sum(map(len, given.code.values())), modules)
    return [(artifact.name, artifact.data), (LEDGER, _json(costs))]


def _claims(given: GivenRuns) -> dict[str, Any]:
    """What submission.json says of the files, for whoever counts them."""
    code, artifact = given.code, given.artifact
    claims: dict[str, Any] = {"script_sha256": hashlib.sha256(code[MAIN]).hexdigest()}
    if artifact is None:
        return claims
    size = sum(map(len, code.values()))
    return {
        "bytes_total": size + len(artifact.data),
        "bytes_code": size,
        "bytes_model": len(artifact.data),
        "artifact": artifact.name,
        "artifact_seed": artifact.seed,
        "artifact_sha256": hashlib.sha256(artifact.data).hexdigest(),
        **claims,
    }


def _claim(
    folder: Path,
    group: Group,
    findings: Sequence[Finding],
    comparison: Comparison | None,
    given: GivenRuns,
    claims: dict[str, Any],
) -> None:
    """Write submission.json."""
    stated = as_submission_json(group, findings, comparison, given.said) | claims
    (folder / CLAIMS).write_bytes(_json(stated))


def _judged(given: GivenRuns, folder: Path, group: Group, cap: int) -> tuple[Finding, ...]:
    """What the rules of folders find; without an artifact only those about the code."""
    if given.artifact:
        shipped = measure_folder(Submission.open(folder), cap)
        return tuple(each for each in folder_judges.judge(shipped) if each.rule not in group_judges.rules)
    files = [folder / name for name in given.code]
    scan = scan_findings(scan_code(folder, files))
    sizes = compare_files(group.logs, sum(map(len, given.code.values())), None, None, cap)
    return (*([sizes] if sizes else []), *scan)


def _shown(given: GivenRuns, group: Group, comparison: Comparison | None, target: Target) -> Shown:
    artifact = given.artifact
    best = min(group.runs, key=lambda run: (run.bpb, run.seed)).seed
    seed = artifact.seed if artifact else best
    return Shown(
        said=given.said,
        group=group,
        comparison=comparison,
        against=target.names,
        cap=target.cap,
        code={name: len(data) for name, data in given.code.items()},
        artifact=len(artifact.data) if artifact else None,
        artifact_name=artifact.name if artifact else "",
        artifact_seed=artifact.seed if artifact else None,
        commands=run_commands(given.code, group.logs, seed, given.environment),
    )


def _write(folder: Path, files: Sequence[tuple[str, bytes]]) -> None:
    names = [name for name, _ in files]
    taken = [name for name in names if names.count(name) > 1 or name in (README, CLAIMS, SUMS)]
    if taken:
        raise UsageError(f"two files of the record would be called {taken[0]}", hint="give the artifact another name")
    odd = [name for name in names if printable(name) != name or "\\" in name]
    if odd:
        raise UsageError(f"no file of a record is called {odd[0]!r}", hint="give it a name of letters and digits")
    for name, data in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _refuse_given(given: GivenRuns, findings: Sequence[Finding]) -> None:
    """What fails in the runs as they were given.  findings: on their logs alone."""
    rules = {finding.rule for finding in given.failed}
    others = [finding for finding in findings if finding.rule not in rules]
    stated = all(finding.level != "fail" for finding in findings)
    if given.failed or not stated:
        hint = "a submission.json among the runs states it so; from the logs alone it is made anew" if stated else ""
        raise RecordRefused([*given.failed, *others], hint if "submission.json" in _messages(given.failed) else "")


def _messages(findings: Sequence[Finding]) -> str:
    return "".join(finding.message for finding in findings)


def _refuse(findings: Sequence[Finding]) -> None:
    if any(finding.level == "fail" for finding in findings):
        raise RecordRefused(findings)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """An error names a file of the record by its name: the folder it lies in while it is written has none."""
    try:
        yield
    except PgolfError as error:
        error.where = error.where.replace(f"{folder}/", "")
        raise


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except PgolfError as error:
        error.where = error.where or name
        raise


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
