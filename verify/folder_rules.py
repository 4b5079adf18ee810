"""Judges of what a submission's folder shows before anything of it runs."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from codec.errors import printable
from verify.claims.group_rules import group_judges
from verify.claims.log_reader import Log
from verify.claims.submission_json import artifact_seed, number
from verify.facts import Shipped
from verify.finding import Finding, Level, worst
from verify.judges import Judges
from verify.rules import RULES
from verify.submission.byte_count import CODE_SUFFIXES, MAIN
from verify.submission.run_settings import MOST, MOST_BYTES, fit, size
from verify.submission.static_scan import Scan

folder_judges = Judges[Shipped]()
ABSENT = "no artifact is here"


@folder_judges("bytes.cap")
def check_cap(facts: Shipped) -> Finding:
    """Counted code plus artifact against the cap."""
    count = facts.count
    if not count.artifact and count.import_closure <= count.cap:
        message = f"code {count.import_closure:,} of {count.cap:,} bytes; {ABSENT}"
        return Finding(rule="bytes.cap", level="unknown", evidence=count.to_dict(), message=message)
    spare = count.cap - count.judged_total
    state = f"{spare:,} to spare" if spare >= 0 else f"{-spare:,} too many"
    more = f" + settings {count.settings:,}" if count.settings else ""
    more += f" + names {count.names:,}" if count.names else ""
    return Finding(
        rule="bytes.cap",
        level="pass" if spare >= 0 else "fail",
        evidence=count.to_dict(),
        message=f"code {count.import_closure:,}{more} + artifact {count.artifact:,} = "
        f"{count.judged_total:,} bytes, cap {count.cap:,}: {state}{count.others}",
    )


@folder_judges("folder.contents")
def check_folder(facts: Shipped) -> Finding:
    """Files that are neither counted nor usual; code among them fails, unless it is tolerated by name."""
    extra = list(facts.folder.unexpected)
    code = [name for name in extra if PurePosixPath(name).suffix in CODE_SUFFIXES]
    if not extra:
        return Finding(rule="folder.contents", level="pass", message="only the usual files")
    if code:
        return Finding(
            rule="folder.contents",
            level="fail",
            evidence={"files": extra, "code": code},
            message=f"{len(code)} code files that {MAIN} neither imports nor opens, so they are not counted: "
            f"{', '.join(code[:5])}; remove them or name them with --extra",
        )
    return Finding(
        rule="folder.contents",
        level="warn",
        evidence={"files": extra},
        message=f"{len(extra)} unexpected files, neither counted nor given to the script: {', '.join(extra[:5])}",
    )


@folder_judges("bytes.settings")
def check_settings(facts: Shipped) -> Finding | None:
    """Settings that a README or log states are few and short, and counted as far as they reach the script."""
    rule, folder = "bytes.settings", facts.folder
    stated, bytes_, name = folder.environment, size(folder.environment), folder.stated_in
    if not stated:
        return None
    evidence = {
        "stated_in": name,
        "settings": len(stated),
        "bytes": bytes_,
        "reach_the_script": folder.own_load is False,
    }
    what = f"{len(stated)} settings of {bytes_:,} bytes in {name}"
    if not fit(stated):
        message = (
            f"{what}: a script gets at most {MOST} of {MOST_BYTES:,} bytes beside its files, so it gets none of them"
        )
        return Finding(rule=rule, level="fail", message=message, evidence=evidence)
    if folder.own_load:
        message = f"{what} do not reach the script: one with `load` has its settings in its files"
        return Finding(rule=rule, level="pass", message=message, evidence=evidence)
    message = f"{what} reach the script, which has no `load`; counted as code: {printable(' '.join(stated), 200)}"
    return Finding(rule=rule, level="pass", message=message, evidence=evidence)


@folder_judges("claims.bytes")
def check_claimed_bytes(facts: Shipped) -> Finding:
    """Sizes in submission.json against what was counted; stating too little fails."""
    count, claims = facts.count, facts.folder.claims
    counted = {"bytes_code": count.import_closure}
    if count.artifact:
        counted |= {"bytes_total": count.shipped, "bytes_model": count.artifact}
    stated = {name: number(claims.get(name)) for name in counted}
    wrong = {
        name: {"claimed": float(value), "counted": counted[name]}
        for name, value in stated.items()
        if value is not None and value != counted[name]
    }
    if all(value is None for value in stated.values()):
        useless = [name for name in counted if claims.get(name) is not None]
        message = "submission.json states no sizes" + (f": no number in {', '.join(useless)}" if useless else "")
        return Finding(rule="claims.bytes", level="not stated", message=message)
    if not wrong:
        return Finding(
            rule="claims.bytes", level="pass", message="sizes in submission.json equal the count", evidence=counted
        )
    too_small = any(pair["claimed"] < pair["counted"] for pair in wrong.values())
    listed = ", ".join(f"{name} {pair['claimed']:,.0f} (counted {pair['counted']:,})" for name, pair in wrong.items())
    return Finding(
        rule="claims.bytes",
        level="fail" if too_small else "warn",
        evidence=wrong,
        message=f"submission.json states {listed}",
    )


@folder_judges("claims.hashes")
def check_claimed_hashes(facts: Shipped) -> Finding:
    """sha256 of artifact and script in submission.json against the files."""
    claims = facts.folder.claims
    have = {"script_sha256": facts.folder.script_sha256}
    if facts.artifact.size:
        have["artifact_sha256"] = facts.artifact.sha256
    stated = {name: str(claims[name]) for name in have if claims.get(name)}
    wrong = [name for name, value in stated.items() if value != have[name]]
    if wrong:
        return Finding(
            rule="claims.hashes",
            level="fail",
            evidence={"claimed": stated, "files": have},
            message=f"{' and '.join(wrong)} of submission.json name other files than these",
        )
    if not stated:
        message = "submission.json states no sha256"
        return Finding(rule="claims.hashes", level="not stated", message=message, evidence={"files": have})
    message = "the files are those submission.json names"
    return Finding(rule="claims.hashes", level="pass", message=message, evidence={"files": have})


@folder_judges(*group_judges.rules)
def check_folder_logs(facts: Shipped) -> Iterable[Finding]:
    """What the folder's logs show by themselves and against submission.json."""
    if facts.logs.group:
        return group_judges.judge(facts.logs.group)
    if facts.logs.error and facts.folder.claims.get("val_bpb") is not None:
        message = f"no log that can be read: {facts.logs.error}"
        return [Finding(rule="log.headline", level="unknown", message=message)]
    return [Finding(rule="log.headline", level="not stated", message="the folder holds no log with a score")]


@folder_judges("bytes.logged")
def check_files(facts: Shipped) -> Finding | None:
    """Script and artifact are as large as the logs count them."""
    if facts.logs.group is None:
        return None
    group, count = facts.logs.group, facts.count
    seed = artifact_seed(facts.folder.claims)
    return compare_files(group.group.logs, count.import_closure, count.artifact or None, seed, count.cap)


def compare_files(logs: Sequence[Log], code: int, artifact: int | None, seed: int | None, cap: int) -> Finding | None:
    """Bytes of the files against those that the logs count.  artifact: None when there is none here.

    seed: whose artifact it is said to be, None when nobody says.  None when the logs state no size, as log.bytes finds.
    """
    rule, counted = "bytes.logged", [log for log in logs if log.sizes.model is not None]
    if not counted:
        return None
    parts: list[tuple[Level, str]] = []
    codes = sorted({log.sizes.code for log in counted if log.sizes.code is not None})
    if codes == [code]:
        parts.append(("pass", f"the code has the {code:,} bytes that the logs count"))
    elif codes:
        listed = ", ".join(f"{size:,}" for size in codes)
        text = f"the code has {code:,} bytes, the logs count {listed}: another form of what ran, or another script"
        parts.append(("warn", text))
    largest = max(counted, key=lambda log: log.sizes.model or 0)
    total = code + (largest.sizes.model or 0)
    if total > cap:
        text = f"with it the model of {largest.name} makes {total:,} bytes, {total - cap:,} over the cap of {cap:,}"
        parts.append(("fail", text))
    parts.append(_of_its_log(counted, artifact, seed))
    return Finding(
        rule=rule,
        level=worst(level for level, _ in parts),
        message="; ".join(text for _, text in parts),
        evidence={
            "code": code,
            "artifact": artifact,
            "artifact_seed": seed,
            "logged_code": codes,
            "logged_models": {log.name: log.sizes.model for log in counted},
        },
    )


def _of_its_log(logs: Sequence[Log], artifact: int | None, seed: int | None) -> tuple[Level, str]:
    """What can be said of an artifact by its size: the log of its seed counts that many bytes, or some log does."""
    if artifact is None:
        return "unknown", "no artifact is here: the sizes of models are what the logs say"
    its = [log for log in logs if log.seed == seed]
    if seed is not None and not its:
        return "fail", f"the artifact is said to be of seed {seed}, of which there is no log with a size"
    if its:
        size = its[0].sizes.model or 0
        same = size == artifact
        text = f"the artifact has {'the ' if same else ''}{artifact:,} bytes"
        return (
            ("pass", f"{text} that the log of its seed {seed} counts")
            if same
            else (
                "fail",
                f"{text}, the log of its seed {seed} counts {size:,}",
            )
        )
    alike = [log.name for log in logs if log.sizes.model == artifact]
    if alike:
        return "pass", f"the artifact has the {artifact:,} bytes that {alike[0]} counts"
    return "warn", f"the artifact has {artifact:,} bytes, as many as none of the logs counts"


@folder_judges("artifact.decodes", "artifact.foreign")
def check_artifact(facts: Shipped) -> Finding:
    """The artifact is decoded by now (Submission.open raises CodecError otherwise), or of another format.

    Nobody but the sandboxed script opens one of another format.
    """
    artifact = facts.artifact
    if not artifact.size:
        return Finding(rule="artifact.decodes", level="unknown", message=ABSENT)
    if artifact.foreign:
        return Finding(
            rule="artifact.foreign",
            level="warn",
            evidence={"file": artifact.name, "looks_like": artifact.foreign},
            message=f"{artifact.name} ({artifact.size:,} bytes) is {artifact.foreign}, not the format of this "
            "toolkit: only the script opens it, in the sandbox, where pickles give tensors and plain values alone",
        )
    tensors, weights = len(artifact.state), artifact.weights
    return Finding(
        rule="artifact.decodes",
        level="pass",
        evidence={"tensors": tensors, "weights": weights},
        message=f"{tensors} tensors, {weights:,} weights, {8 * artifact.size / max(weights, 1):.3f} bits per weight",
    )


@folder_judges(*(rule for rule in RULES if rule.startswith("triage.")))
def check_scan(facts: Shipped) -> list[Finding]:
    """What the static scan saw."""
    return scan_findings(facts.scan)


def scan_findings(scan: Scan) -> list[Finding]:
    """Every hit of the static scan is a warning; that there is none proves nothing."""
    found = [
        Finding(
            rule=hit.rule,
            level="warn",
            message=f"{hit.file} line {hit.line}: {hit.what}: `{hit.source}`",
            evidence={"file": hit.file, "line": hit.line, "source": hit.source},
        )
        for hit in scan.hits
    ]
    if scan.unread:
        message = f"{scan.unread} of its sources do not parse on this Python and were not read"
        return [*found, Finding(rule="triage.scan", level="unknown", message=message)]
    if not found:
        message = f"nothing of the checklist in {scan.lines:,} lines; that proves nothing"
        return [Finding(rule="triage.scan", level="pass", message=message)]
    return found
