"""What a look for foresight shows, as findings."""

from typing import Any

from verify.audit.causality_rules import FLOAT
from verify.audit.evidence import clause, finding, finite
from verify.finding import Finding
from verify.foresight.power import ALPHA, MARGIN, PROBABILITY, SHARES, WORTH, lean_test, sign_test
from verify.foresight.probe import Foresight
from verify.foresight.strict import Strict


def prefix_finding(found: Foresight) -> Finding:
    """score.prefix: what was scored keeps its scores up to a cut when the text behind it is another one."""
    rule = "score.prefix"
    coverage = _coverage(found)
    if not found.cuts:
        return finding(rule, "unknown", f"no scored window was looked at again{_how(found)} (--proof 0)", coverage)
    looked = f"{found.cuts:,} cuts{_how(found)}, {found.share:.1%} of the forwards"
    if found.worst is None:
        return finding(rule, "pass", f"{looked}: equal up to each cut; {_statement(found)}", coverage)
    worst = {"cut": found.cut, "window": list(found.window), "position": found.worst.position}
    witness = {**worst, "before": found.worst.before, "after": found.worst.after}
    again = f"asked the same again, another process gives scores up to {found.noise:.2g} nats off"
    if found.exact or found.worst.size > MARGIN * found.noise:
        start, stop = found.window
        rows, others = ("rows", " and the other rows") if found.by_rows else ("requests", "")
        when = (
            f"when only the text behind position {found.cut}{others} changed, in the window of tokens "
            f"{start} to {stop - 1}; {found.moved:,} of {found.rows:,} {rows}"
        )
        message = f"{clause(found.worst)}{_how(found)} {when if found.moved else 'when the same was asked again'}"
        if found.noise > FLOAT:
            message += f"; {again}, which on a CPU is the script's doing" if found.exact else f"; {again}"
        return finding(rule, "fail", message, coverage, witness)
    if found.by_rows:
        chance = min(sign_test(found.risen, found.fallen), lean_test(found.lean))
        signs = (
            f"{found.risen:,} of {found.risen + found.fallen:,} scores rose at their cuts, leaning {found.lean:+.1f}"
        )
        if chance < ALPHA:
            message = f"{again}, but {signs}, which noise does with probability {chance:.1g}"
            return finding(rule, "fail", message, coverage, witness)
        again = f"{again}; {signs}"
    fine = all(found.power.seen(share) >= PROBABILITY for share in SHARES)
    return finding(rule, "pass" if fine else "unknown", f"{again}; {_statement(found)}", coverage, witness)


def strict_finding(found: Strict) -> Finding:
    """score.strict: targets scored from their prefixes alone have the scores of the run."""
    coverage = {"targets": found.targets, "mean": found.mean, "interval": [found.low, found.high], "of": 0.95}
    gap = f"{found.mean:+.2g} nats per target, 95 % {found.low:+.2g} to {found.high:+.2g}"
    if found.refusal:
        how = f"in whole windows with another text behind them, for shorter ones it refuses ({found.refusal[:100]})"
        coverage["refusal"] = found.refusal
    else:
        how = f"{found.targets:,} targets from their prefixes alone"
    if found.rounded:
        coverage["rounded"] = found.rounded
        gap += f"; {found.rounded:,} differ by the kernels of another shape"
    if found.worst is None:
        return finding("score.strict", "pass", f"{how}: {gap}", coverage)
    message = f"{how}: {gap}; {found.worst.changed:,} were scored otherwise, {clause(found.worst)}"
    return finding("score.strict", "fail", message, coverage, found.worst)


def _how(found: Foresight) -> str:
    how = {"sliding": "", "own": " by `reveal`"}.get(found.score, f" by {found.score}")
    return how + " in the fresh text" * found.fresh


def _coverage(found: Foresight) -> dict[str, Any]:
    return {
        "score": found.score,
        "fresh": found.fresh,
        "cuts": found.cuts,
        "windows_of_least_loss": found.least,
        "loss_below_which_all": found.threshold,
        "share": found.share,
        "repeated_requests": found.repeated,
        "noise": finite(found.noise),
        "risen": found.risen,
        "fallen": found.fallen,
        "lean": found.lean,
        "tolerance": FLOAT,
        "power": found.power.to_dict(),
    }


def _statement(found: Foresight) -> str:
    """What would have been seen, in words."""
    power = found.power.to_dict()
    if power["nats"] is None:
        seen = ", ".join(f"{chance:.2g} in {share}" for share, chance in power["seen"].items())
        return f"a leak of {WORTH:g} nats per token would have been seen with probability {seen} of the positions"
    return (
        f"a leak of >= {power['nats']:.2g} nats in >= {power['share']:.2g} of the positions would have been seen with "
        f"probability {PROBABILITY:g}"
    )
