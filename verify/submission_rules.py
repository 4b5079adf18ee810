"""One function per rule of docs/rules.md: what was measured in, a Finding out."""

import hashlib
from decimal import Decimal
from pathlib import Path
from typing import Any

from codec.budget import PARAMETER_GOLF
from codec.errors import InputError
from verify.claims.log_grammar import kind_of
from verify.claims.submission_json import number
from verify.finding import Finding, Level
from verify.rescore import Reloaded
from verify.sandbox.launch import Settings
from verify.scoring.heldout import HeldOut
from verify.scoring.score import Score
from verify.submission.byte_count import CODE_SUFFIXES, MAIN, ByteCount, unexpected
from verify.submission.folder import Submission


def check_cap(count: ByteCount) -> Finding:
    """Counted code plus artifact against the cap."""
    spare = count.cap - count.judged_total
    state = f"{spare:,} to spare" if spare >= 0 else f"{-spare:,} too many"
    return Finding(
        rule="bytes.cap",
        level="pass" if spare >= 0 else "fail",
        evidence=count.to_dict(),
        message=f"code {count.import_closure:,} + artifact {count.artifact:,} = "
        f"{count.judged_total:,} bytes, cap {count.cap:,}: {state}{count.others}",
    )


def check_folder(submission: Submission) -> Finding:
    """Files that are neither counted nor usual; code among them fails, unless it is tolerated by name."""
    extra = [name for name in unexpected(submission.folder, submission.artifact) if name not in submission.tolerated]
    code = [name for name in extra if Path(name).suffix in CODE_SUFFIXES]
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


def check_claimed_bytes(submission: Submission, count: ByteCount) -> Finding:
    """Sizes in submission.json against what was counted; stating too little fails."""
    counted = {"bytes_total": count.judged_total, "bytes_code": count.import_closure, "bytes_model": count.artifact}
    stated = {name: number(submission.claims.get(name)) for name in counted}
    wrong = {
        name: {"claimed": float(value), "counted": counted[name]}
        for name, value in stated.items()
        if value is not None and value != counted[name]
    }
    if all(value is None for value in stated.values()):
        useless = [name for name in counted if submission.claims.get(name) is not None]
        message = "submission.json states no sizes" + (f": no number in {', '.join(useless)}" if useless else "")
        return Finding(rule="claims.bytes", level="unknown", message=message)
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


def check_claimed_hashes(submission: Submission) -> Finding:
    """sha256 of artifact and script in submission.json against the files."""
    have = {
        "artifact_sha256": hashlib.sha256(submission.blob).hexdigest(),
        "script_sha256": hashlib.sha256((submission.folder / MAIN).read_bytes()).hexdigest(),
    }
    stated = {name: str(submission.claims[name]) for name in have if submission.claims.get(name)}
    wrong = [name for name, value in stated.items() if value != have[name]]
    if wrong:
        return Finding(
            rule="claims.hashes",
            level="fail",
            evidence={"claimed": stated, "files": have},
            message=f"{' and '.join(wrong)} of submission.json name other files than these",
        )
    if not stated:
        return Finding(
            rule="claims.hashes", level="unknown", message="submission.json states no sha256", evidence={"files": have}
        )
    return Finding(
        rule="claims.hashes",
        level="pass",
        message="the files are those submission.json names",
        evidence={"files": have},
    )


def check_artifact(submission: Submission) -> Finding:
    """The artifact decoded, as Submission.open has done (it raises CodecError otherwise)."""
    weights = sum(array.size for array in submission.tensors.values())
    return Finding(
        rule="artifact.decodes",
        level="pass",
        evidence={"tensors": len(submission.tensors), "weights": weights},
        message=f"{len(submission.tensors)} tensors, {weights:,} weights, "
        f"{8 * len(submission.blob) / max(weights, 1):.3f} bits per weight",
    )


def check_foreign(submission: Submission) -> Finding:
    """An artifact of another format: nobody but the sandboxed script opens it."""
    return Finding(
        rule="artifact.foreign",
        level="warn",
        evidence={"file": submission.artifact.name, "looks_like": submission.foreign},
        message=f"{submission.artifact.name} ({len(submission.blob):,} bytes) is {submission.foreign}, not the format "
        "of this toolkit: only the script opens it, in the sandbox, where pickles give tensors and plain values alone",
    )


def check_tokenizer(submission: Submission, heldout: HeldOut) -> Finding:
    """The tokenizer the model was trained with is the one that made the held-out tokens.

    Raises: InputError when it is another one: every number would be meaningless.
    """
    trained, used = submission.meta.get("tokenizer_sha256"), heldout.tokenizer_sha256
    if not trained:
        return Finding(
            rule="artifact.tokenizer",
            level="unknown",
            message="the artifact names no tokenizer",
            evidence={"used": used},
        )
    if trained != used:
        raise InputError(
            f"has sha256 {used[:12]}..., the model was trained with tokenizer {str(trained)[:12]}...",
            where=str(heldout.tokenizer),
            hint="pass the matching --tokenizer and --data",
        )
    return Finding(
        rule="artifact.tokenizer",
        level="pass",
        evidence={"sha256": used},
        message="the tokenizer is the one the model was trained with",
    )


def check_state(submission: Submission, reloaded: Reloaded) -> Finding:
    """Tensors the script has loaded against those this process decoded from the same artifact."""
    if submission.foreign:
        message = f"{len(reloaded.state)} tensors loaded; only the script knows its artifact, so none can be compared"
        return Finding(rule="reload.state", level="unknown", message=message)
    decoded = {
        name: {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }
        for name, array in submission.tensors.items()
    }
    loaded = reloaded.state
    comparable = [
        name
        for name, ours in decoded.items()
        if name in loaded and all(loaded[name][key] == ours[key] for key in ("dtype", "shape"))
    ]
    differ = [name for name in comparable if loaded[name]["sha256"] != decoded[name]["sha256"]]
    evidence = {
        "decoded": len(decoded),
        "compared": len(comparable),
        "differ": differ[:20],
        "only_in_module": len(loaded.keys() - decoded.keys()),
    }
    level: Level
    if differ:
        level, message = "fail", f"{len(differ)} loaded tensors differ from the artifact, first `{differ[0]}`"
    elif len(comparable) < len(decoded):
        level, message = (
            "unknown",
            (
                f"only {len(comparable)} of {len(decoded)} tensors can be compared, the script "
                "holds the others under other names, shapes or dtypes"
            ),
        )
    else:
        level, message = "pass", f"all {len(decoded)} loaded tensors equal the artifact's, bit for bit"
    return Finding(rule="reload.state", level=level, message=message, evidence=evidence)


def check_bytes_proof(heldout: HeldOut) -> Finding:
    """The proof HeldOut.read has made (it raises InputError when the bytes do not add up)."""
    return Finding(
        rule="text.bytes",
        level="pass",
        evidence=dict(heldout.proof),
        message=f"{heldout.proof['bytes']:,} bytes counted = decoded text, in each of "
        f"{heldout.proof['documents']:,} documents",
    )


def check_coverage(score: Score, heldout: HeldOut) -> Finding:
    """Every target scored once: as many tokens and bytes as this process counts."""
    need = {"tokens": heldout.targets, "bytes": heldout.proof["bytes"]}
    have = {"tokens": score.tokens, "bytes": score.bytes}
    return Finding(
        rule="score.coverage",
        level="pass" if have == need else "fail",
        evidence={"have": have, "need": need, "windows": score.windows, "partial": heldout.partial},
        message=f"{score.tokens:,} of {heldout.targets:,} targets scored, each once"
        + (f"; PARTIAL: the shards hold {heldout.shard_targets:,} targets" if heldout.partial else ""),
    )


def check_time(score: Score, settings: Settings) -> Finding:
    """Scoring time here against the evaluation budget, which is meant for 8 H100."""
    within = score.seconds <= PARAMETER_GOLF.eval_seconds
    return Finding(
        rule="time.evaluation",
        level="pass" if within else "unknown",
        evidence={"seconds": score.seconds, "budget": PARAMETER_GOLF.eval_seconds, "device": settings.device},
        message=f"scored in {score.seconds:.1f} s on this machine, the budget is "
        f"{PARAMETER_GOLF.eval_seconds} s on 8 H100",
    )


def check_penalty(packed: Score, unpacked: Score) -> Finding:
    """What packing cost; information, not a limit."""
    return Finding(
        rule="score.penalty",
        level="pass",
        evidence={"float_bpb": unpacked.bpb, "packed_bpb": packed.bpb},
        message=f"float {unpacked.bpb:.6f} bpb, packed {packed.bpb:.6f}, penalty {packed.bpb - unpacked.bpb:+.6f}",
    )


CLAIM_TOLERANCE = 1e-6  # bpb; claims carry 8 decimals, another batch size moves the 8th
LEAST_DECIMALS = 3  # a claim of fewer says too little to agree with anything: 0.002 bpb are a record


def evaluation(score: Score, length: int | None, stride: int) -> dict[str, Any]:
    """How a score by fixed weights was made: `eval` of submission.json, in the words of write_submission_json."""
    return {
        "mode": score.scorer,
        "L": length,
        "S": stride,
        "ttt": None,
        "n_tokens": score.tokens,
        "n_bytes": score.bytes,
    }


def check_claimed_score(submission: Submission, score: Score, heldout: HeldOut, settings: Settings) -> Finding:
    """val_bpb in submission.json against the measured one; it decides when `eval` says the same way and text."""
    rule, claimed = "claims.score", number(submission.claims.get("val_bpb"))
    how, measured = _stated_evaluation(submission), evaluation(score, settings.length, settings.stride)
    if claimed is None or claimed <= 0:
        return Finding(rule=rule, level="unknown", message="submission.json states no val_bpb")
    evidence: dict[str, Any] = {
        "claimed": float(claimed),
        "measured": score.bpb,
        "measured_how": measured,
        "claimed_how": how,
    }
    message = f"submission.json states val_bpb {claimed:.6f}, measured {score.bpb:.6f}"
    other = [f"{key} {value:,.0f}" for key, value in how.items() if key != "mode" and value != measured[key]]
    if "mode" in how and kind_of(how["mode"]) not in ("sliding", "roundtrip"):
        other.append(how["mode"])
    reasons = ["only a part of the text was scored"] if heldout.partial else []
    reasons += [f"its eval states {', '.join(other)}"] if other else []
    level: Level
    if reasons:
        level = "unknown"
        message += f"; not compared: {' and '.join(reasons)}"
    elif _as_stated(claimed, score.bpb):
        level = "pass"
    elif {"L", "S", "n_tokens"} <= how.keys():
        level = "fail"
    else:
        level = "warn" if claimed < score.bpb else "unknown"
        message += "; its eval does not state L, S and n_tokens, so they may be of another evaluation"
    return Finding(rule=rule, level=level, message=message, evidence=evidence)


def _stated_evaluation(submission: Submission) -> dict[str, Any]:
    """What `eval` of submission.json says of windows and text, as far as it can be compared."""
    how = submission.claims.get("eval")
    if not isinstance(how, dict):
        return {}
    told = {key: number(how.get(key)) for key in ("L", "S", "n_tokens", "n_bytes")}
    stated: dict[str, Any] = {key: float(value) for key, value in told.items() if value is not None}
    if isinstance(how.get("mode"), str):
        stated["mode"] = how["mode"]
    return stated


def _as_stated(claimed: Decimal, measured: float) -> bool:
    """Whether the measured number is the claimed one as far as that was written out."""
    exponent = claimed.as_tuple().exponent
    places = min(exponent if isinstance(exponent, int) else 0, -LEAST_DECIMALS)
    return abs(float(claimed) - measured) <= max(CLAIM_TOLERANCE, 0.5000001 * 10.0**places)
