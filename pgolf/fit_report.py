"""What `pgolf pack --fit` says of the steps it chose: bytes predicted and real, and what each step costs."""

from typing import TYPE_CHECKING

import click

from pgolf.console import echo, print_table

if TYPE_CHECKING:
    from codec.allocation.plan import Choice, FittedRecipe
    from codec.quantization.recipe import Rule


def print_choices(plan: "FittedRecipe") -> None:
    """A line for every tensor whose step was free: its rule, bytes, signal to noise, and nats where calibrated."""
    calibrated = plan.nats is not None
    headers = ("tensor", "recipe", "fitted", "bytes", "->", "SNR dB", "->", *(("nats", "->") if calibrated else ()))
    rows = [_row(choice, calibrated) for choice in plan.choices]
    if rows:
        print_table(rows, headers)
        click.echo()


def print_fit(plan: "FittedRecipe") -> None:
    """Two lines: how near, and at which cost."""
    missed = 100 * (plan.predicted_bytes / plan.artifact_bytes - 1)
    before, after = plan.snr_db
    cost = f"SNR {before:.2f} -> {after:.2f} dB"
    if plan.nats:
        known = sum(choice.before.nats is not None for choice in plan.choices)
        cost += f"; predicted nats per token {plan.nats[0]:.6f} -> {plan.nats[1]:.6f} ({known} of {len(plan.choices)}"
        cost += " tensors calibrated)"
    click.echo(
        f"fit: artifact {plan.recipe_bytes:,} -> {plan.artifact_bytes:,} bytes, predicted {plan.predicted_bytes:,} "
        f"({missed:+.3f} %), {plan.limit - plan.artifact_bytes:,} below its limit of {plan.limit:,}"
    )
    click.echo(f"cost: {cost}")
    if plan.finest:
        echo("note: no step can be finer, int8 is the finest; the bytes left over are yours", err=True)


def _row(choice: "Choice", calibrated: bool) -> tuple[str, ...]:
    more = f" = {len(choice.names) - 1} more" if len(choice.names) > 1 else ""
    measured = [f"{each:,.0f}" for each in (choice.before.bytes, choice.after.bytes)]
    measured += [f"{each:.2f}" for each in choice.snr_db]
    if calibrated:
        nats = (choice.before.nats, choice.after.nats)
        measured += ["" if each is None else f"{each:.2e}" for each in nats]
    return (choice.names[0] + more, _short(choice.rule), _short(choice.fitted), *measured)


def _short(rule: "Rule") -> str:
    coarser: float = getattr(rule.quantizer, "coarser", 1.0)
    return rule.treatment if coarser == 1 else f"{rule.treatment} x {coarser:.4g}"
