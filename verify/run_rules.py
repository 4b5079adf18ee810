"""Judges of what a submission's model did when it was loaded and scored."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, get_args

from codec.budget import PARAMETER_GOLF
from codec.errors import printable
from verify.claims.score_line import kind_of
from verify.claims.submission_json import artifact_bpb, artifact_seed, mean_contradiction, number
from verify.facts import ArtifactFacts, Facts
from verify.finding import Finding, Level
from verify.foresight.findings import prefix_finding, strict_finding
from verify.judges import Judges
from verify.memorisation import Memorised
from verify.rescore import Rescored
from verify.scoring.adaptation import ScorerName
from verify.scoring.score import Score

run_judges = Judges[Facts]()
CLAIM_TOLERANCE = 1e-6  # bpb; claims carry 8 decimals, another batch size moves the 8th
# Share of the fresh text's bits by which texts of one kind may differ although neither is known.
FOREIGN = 0.02
LEAST_DECIMALS = 3  # a claim of fewer says too little to agree with anything: 0.002 bpb are a record


@run_judges("artifact.tokenizer")
def check_tokenizer(facts: Facts) -> Finding:
    """The tokenizer the model was trained with is the one that made the held-out tokens, as was made sure of."""
    used = facts.text.tokenizer_sha256
    if not facts.artifact.tokenizer_sha256:
        return Finding(
            rule="artifact.tokenizer",
            level="unknown",
            message="the artifact names no tokenizer",
            evidence={"used": used},
        )
    return Finding(
        rule="artifact.tokenizer",
        level="pass",
        evidence={"sha256": used},
        message="the tokenizer is the one the model was trained with",
    )


@run_judges("text.bytes")
def check_bytes_proof(facts: Facts) -> Finding:
    """The proof HeldOut.read has made (it raises InputError when the bytes do not add up)."""
    proof, unproven = facts.text.proof, facts.text.unproven
    if unproven:
        return Finding(rule="text.bytes", level="unknown", evidence=dict(proof), message=unproven)
    stated = (
        "stated by the sidecar = decoded text, CaseOps undone" if "differing" in proof else "counted = decoded text"
    )
    return Finding(
        rule="text.bytes",
        level="pass",
        evidence=dict(proof),
        message=f"{proof['bytes']:,} bytes {stated}, in each of {proof['documents']:,} documents",
    )


@run_judges("reload.protocol")
def check_protocol(facts: Facts) -> Finding:
    """By what the script's model was loaded, and with which settings."""
    notes, settings, folder = list(facts.packed.notes), facts.settings, facts.folder
    if not notes:
        return Finding(
            rule="reload.protocol", level="pass", message="loaded by the script's `load(artifact_path, device)`"
        )
    environment = {**folder.reaching, **settings.environment}
    given = " ".join(f"{name}={value}" for name, value in environment.items()) or "no settings"
    stated = f", as {folder.stated_in} states" if folder.reaching and not settings.environment else ""
    return Finding(
        rule="reload.protocol",
        level="warn",
        message=f"no `load`, so the adapter of the seed family ran it in float32 with exact attention: "
        f"{'; '.join(notes)}; environment: {printable(given, 300)}{stated}",
        evidence={"notes": notes, "environment": environment, "stated_in": folder.stated_in},
    )


@run_judges("sandbox.missing")
def check_sandbox(facts: Facts) -> Finding:
    """Whether the kernel enforced every limit."""
    missing = list(facts.packed.missing)
    if not missing:
        message = "network, processes, files, memory and time of the script were limited by the kernel"
        return Finding(rule="sandbox.missing", level="pass", message=message)
    return Finding(
        rule="sandbox.missing",
        level="unknown",
        message=f"the script ran without these limits: {'; '.join(missing)}",
        evidence={"missing": missing},
    )


@run_judges("sandbox.attempts")
def check_attempts(facts: Facts) -> Finding:
    """Whether the script tried what the sandbox refuses."""
    return _attempts(facts.packed)


@run_judges("reload.state")
def check_state(facts: Facts) -> Finding:
    """Tensors the script has loaded against those decoded here from the same artifact."""
    return _state(facts.artifact, facts.packed)


@run_judges("score.coverage")
def check_coverage(facts: Facts) -> Finding:
    """Every target scored once: as many tokens and bytes as the held-out text has."""
    score, text = facts.packed.score, facts.text
    need = {"tokens": text.targets, "bytes": text.proof["bytes"]}
    have = {"tokens": score.tokens, "bytes": score.bytes}
    return Finding(
        rule="score.coverage",
        level="pass" if have == need else "fail",
        evidence={"have": have, "need": need, "windows": score.windows, "partial": text.partial},
        message=f"{score.tokens:,} of {text.targets:,} targets scored, each once"
        + (f"; PARTIAL: the shards hold {text.shard_targets:,} targets" if text.partial else ""),
    )


@run_judges("score.prefix")
def check_prefix(facts: Facts) -> Iterator[Finding]:
    """Scored windows keep their scores up to a cut when the text behind it is another one."""
    yield from map(prefix_finding, (facts.prefix, *facts.beside))


@run_judges("score.strict")
def check_strict(facts: Facts) -> Finding | None:
    """Targets scored from their prefixes alone keep their scores."""
    return strict_finding(facts.strict) if facts.strict else None


@run_judges("claims.score")
def check_claimed_score(facts: Facts) -> Finding:
    """val_bpb in submission.json against the measured one; it decides when `eval` says the same way and text."""
    rule, claims = "claims.score", facts.folder.claims
    of_seed = artifact_bpb(claims)
    claimed = number(claims.get("val_bpb")) if of_seed is None else of_seed
    if claimed is None or claimed <= 0:
        return Finding(rule=rule, level="not stated", message="submission.json states no val_bpb")
    how = _stated_evaluation(claims)
    kind = kind_of(how["mode"]) if "mode" in how else facts.headline.scorer
    score, checked = _score_of(facts, kind)
    own = facts.own.statement.to_dict() if facts.own else None
    measured = evaluation(score, facts.settings.length, facts.settings.stride, own)
    evidence: dict[str, Any] = {
        "claimed": float(claimed),
        "measured": score.bpb,
        "measured_how": measured,
        "claimed_how": how,
    }
    whose = "" if of_seed is None else f" of seed {artifact_seed(claims)}, whose artifact this is"
    message = f"submission.json states val_bpb {claimed:.6f}{whose}, measured {score.bpb:.6f}"
    other = [f"{key} {value:,.0f}" for key, value in how.items() if key != "mode" and value != measured[key]]
    reasons = ["only a part of the text was scored"] if facts.text.partial else []
    same_text = not any(name.startswith("n_") for name in other) and not facts.text.partial
    other += _other_adaptation(facts, claims, kind)
    reasons += [f"its eval states {', '.join(other)}"] if other else []
    level: Level
    if of_seed is not None and (false := mean_contradiction(claims)):
        level, message = "fail", f"{message}; {false}"
    elif not checked:  # nobody looked, and the number is better than the one that was looked at
        level = "warn" if claimed < score.bpb and not _as_stated(claimed, score.bpb) else "unknown"
        message += f"; not checked: its eval states {how['mode']}"
        message += f", score it with --score {kind}" if kind in get_args(ScorerName) else ""
    elif reasons:
        level = "warn" if same_text and claimed < score.bpb and not _as_stated(claimed, score.bpb) else "unknown"
        message += f"; not compared: {' and '.join(reasons)}"
    elif _as_stated(claimed, score.bpb):
        level = "pass"
    elif {"L", "S", "n_tokens"} <= how.keys():
        level = "fail"
    else:
        level = "warn" if claimed < score.bpb else "unknown"
        message += "; its eval does not state L, S and n_tokens, so they may be of another evaluation"
    return Finding(rule=rule, level=level, message=message, evidence=evidence)


@run_judges("time.evaluation")
def check_time(facts: Facts) -> Finding:
    """Time of loading and scoring here against the evaluation budget, which is meant for 8 H100."""
    loading, scoring = (facts.own.rescored if facts.own else facts.packed).loading, facts.headline.seconds
    seconds, budget = loading + scoring, PARAMETER_GOLF.eval_seconds
    return Finding(
        rule="time.evaluation",
        level="pass" if seconds <= budget else "unknown",
        evidence={"seconds": seconds, "loading": loading, "budget": budget, "device": facts.settings.device},
        message=f"loaded in {loading:.1f} s and scored in {scoring:.1f} s here, the budget is {budget} s on 8 H100",
    )


@run_judges("sandbox.attempts", "reload.state")
def check_adapted(facts: Facts) -> Iterator[Finding]:
    """What fails in the other scores' processes: each had one of its own, in which the script may behave otherwise."""
    for rescored in facts.adapted:
        for found in (_attempts(rescored), _state(facts.artifact, rescored)):
            if found.level == "fail":
                yield found


@run_judges("score.penalty")
def check_penalty(facts: Facts) -> Finding | None:
    """What packing cost; information, not a limit."""
    if facts.floats is None:
        return None
    unpacked, packed = facts.floats.bpb, facts.packed.score.bpb
    return Finding(
        rule="score.penalty",
        level="pass",
        evidence={"float_bpb": unpacked, "packed_bpb": packed},
        message=f"float {unpacked:.6f} bpb, packed {packed:.6f}, penalty {packed - unpacked:+.6f}",
    )


@run_judges("score.memorised")
def check_memorised(facts: Facts) -> Iterator[Finding]:
    """Whether the scored text comes easier than another text of its kind, or in long stretches that are certain."""
    if facts.memorised:
        yield _memorised(facts.memorised)
    for scorer, found in facts.known:
        yield _memorised(found, f"by {scorer}: ")


def _memorised(found: Memorised, by: str = "") -> Finding:
    rule, gap = "score.memorised", found.gap
    evidence: dict[str, Any] = {
        "gap": gap.to_dict() if gap else None,
        "longest_run": found.longest,
        "allowed_run": found.allowed,
        "runs_beyond": found.beyond,
        "runs": list(found.runs),
    }
    runs = (
        f"the longest run of targets above 90 % has {found.longest}, "
        f"{'twice the fresh text' if found.compared else 'its own statistics'} would allow {found.allowed}"
    )
    if found.runs:
        first = found.runs[0]
        runs += f"; it begins at target {first['position']:,}, in document {first['document']}"
    level: Level = "warn" if found.runs else "pass"
    if gap is None:
        unsaid = "the fresh text or the scored one has too few documents to compare" if found.compared else ""
        level = "unknown" if unsaid and level == "pass" else level
        message = unsaid or "compared with no other text (--fresh FILE)"
        return Finding(rule=rule, level=level, message=f"{by}{runs}; {message}", evidence=evidence)
    message = f"{by}fresh text {gap.fresh:.4f} bpb, the scored one {gap.scored:.4f}: {gap.size:+.4f} +- {gap.reach:.4f}"
    if gap.size - gap.reach > FOREIGN * gap.fresh:
        level, message = "fail", f"{message}, more than texts of one kind differ: the scored text is known"
    elif gap.size > gap.reach:
        level, message = "warn", f"{message}, which chance gives one honest model in 1,000"
    else:
        message += f"; knowledge worth {gap.reach:.4f} bpb would have been seen"
    return Finding(rule=rule, level=level, message=f"{message}; {runs}", evidence=evidence)


def evaluation(score: Score, length: int | None, stride: int, own: dict[str, Any] | None = None) -> dict[str, Any]:
    """How a score was made: `eval` of submission.json, in the words of write_submission_json.

    own: how the script adapts by itself, if it does.
    """
    return {
        "mode": score.scorer,
        "L": length,
        "S": stride,
        "ttt": own if score.scorer == "own" else None,
        "n_tokens": score.tokens,
        "n_bytes": score.bytes,
    }


def _attempts(rescored: Rescored) -> Finding:
    attempts = list(rescored.attempts)
    if not attempts:
        message = "nothing that the sandbox refuses was noted"
        return Finding(rule="sandbox.attempts", level="pass", message=message)
    return Finding(
        rule="sandbox.attempts",
        level="fail",
        message=f"the sandbox refused what the script tried: {'; '.join(attempts)[:500]}",
        evidence={"attempts": attempts},
    )


def _state(artifact: ArtifactFacts, rescored: Rescored) -> Finding:
    decoded, loaded = artifact.state, rescored.state
    if artifact.foreign:
        message = f"{len(loaded)} tensors loaded; only the script knows its artifact, so none can be compared"
        return Finding(rule="reload.state", level="unknown", message=message)
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
        level = "unknown"
        message = (
            f"only {len(comparable)} of {len(decoded)} tensors can be compared, the script "
            "holds the others under other names, shapes or dtypes"
        )
    else:
        level, message = "pass", f"all {len(decoded)} loaded tensors equal the artifact's, bit for bit"
    return Finding(rule="reload.state", level=level, message=message, evidence=evidence)


def _stated_evaluation(claims: dict[str, Any]) -> dict[str, Any]:
    """What `eval` of submission.json says of windows and text, as far as it can be compared."""
    how = claims.get("eval")
    if not isinstance(how, dict):
        return {}
    numbers = {key: number(how.get(key)) for key in ("L", "S", "n_tokens", "n_bytes")}
    stated: dict[str, Any] = {key: float(value) for key, value in numbers.items() if value is not None}
    if isinstance(how.get("mode"), str):
        stated["mode"] = how["mode"]
    return stated


def _score_of(facts: Facts, kind: str) -> tuple[Score, bool]:
    """The measured score to hold a claim of that kind against, and whether it is one of that kind.

    What a script that adapts by itself claims of an adaptive score is about its own adaptation.
    """
    if kind not in ("sliding", "roundtrip") and facts.own:
        return facts.headline, True
    score = next((again.score for again in facts.adapted if again.score.scorer == kind), facts.packed.score)
    return score, kind in (score.scorer, "roundtrip")


def _other_adaptation(facts: Facts, claims: dict[str, Any], kind: str) -> list[str]:
    """Numbers that `eval.ttt` of submission.json states of an adaptive score, other than those it was measured with."""
    stated = claims["eval"].get("ttt") if isinstance(claims.get("eval"), dict) else None
    if facts.own or kind not in ("ttt", "slot") or not isinstance(stated, dict) or not facts.settings.length:
        return []
    ours = facts.settings.adaptation.to_dict(facts.text.targets, facts.settings.length)
    numbers = {name: number(stated.get(name)) for name, value in ours.items() if isinstance(value, int | float)}
    return [f"{name} {value}" for name, value in numbers.items() if value is not None and float(value) != ours[name]]


def _as_stated(claimed: Decimal, measured: float) -> bool:
    """Whether the measured number is the claimed one as far as that was written out."""
    exponent = claimed.as_tuple().exponent
    places = min(exponent if isinstance(exponent, int) else 0, -LEAST_DECIMALS)
    return abs(float(claimed) - measured) <= max(CLAIM_TOLERANCE, 0.5000001 * 10.0**places)
