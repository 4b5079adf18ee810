"""Targets per second of the scorers, as the script of a submission scores."""

import time
from typing import Any

from pgolf.doctor.checks.synthetic import tokens, weights
from pgolf.doctor.outcome import Measured, Row
from pgolf.doctor.plan import CARDS, Plan

PRESET = "pr162"
STRIDE, BATCH = 64, 16  # of the packed script
CHALLENGE_TARGETS = 62_021_632  # of the challenge's validation text in sp1024


def scoring(plan: Plan, seconds: float) -> Measured:
    """Sliding, score-first training and SLOT: each a third of the time, or all its targets."""
    import torch

    from trainer.model.gpt import GPT
    from verify.scoring.adaptation import Adaptation
    from verify.scoring.scorer import Scorer
    from verify.scoring.sliding import Sliding
    from verify.scoring.slot import ContextSlot
    from verify.scoring.ttt import UPDATES, ScoreFirst

    config, how = plan.preset(PRESET).model, Adaptation()
    model = GPT(config)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights(config).items()})
    model = model.to(plan.device).eval()
    text = tokens(plan.targets + 1, config.vocab_size)
    sizes: dict[str, Any] = {
        "model": model,
        "vocab_size": config.vocab_size,
        "length": config.seq_len,
        "stride": min(STRIDE, config.seq_len // 2),
        "device": plan.device,
    }
    scorers: dict[str, Scorer] = {
        "sliding": Sliding(**sizes),
        "ttt": ScoreFirst(
            **sizes,
            chunk=how.chunk_of(plan.targets, config.seq_len),
            epochs=how.epochs,
            sequences=how.sequences,
            lr=how.lr,
            update=UPDATES[how.update](),
        ),
        "slot": ContextSlot(**sizes, steps=how.slot_steps, lr=how.slot_lr),
    }
    rows = [_row(name, scorer, text, seconds / len(scorers), plan.dry) for name, scorer in scorers.items()]
    wrong = [f"{row['scorer']} scored {row['not finite']} targets as not finite" for row in rows if row["not finite"]]
    wrong += [f"{row['scorer']} does not fit into the card's memory" for row in rows if row["targets"] is None]
    return Measured(
        rows=tuple(rows),
        wrong=tuple(wrong),
        notes=(
            f"windows of {config.seq_len}, a stride of {sizes['stride']}, {BATCH} at a time, products in float32, "
            "as the packed script scores",
            f"the last column is {CHALLENGE_TARGETS:,} targets at this pace on {CARDS} such cards: a calculation",
        ),
    )


def _row(name: str, scorer, text, seconds: float, dry: bool) -> Row:  # type: ignore[no-untyped-def]
    import numpy as np
    import torch

    done = bad = 0
    started = time.monotonic()
    try:
        for scored in scorer.run(text, batch=BATCH):
            done += len(scored.positions)
            bad += int((~np.isfinite(scored.nats)).sum())
            if time.monotonic() - started > seconds:
                break
    except torch.OutOfMemoryError:
        return {"scorer": name, "targets": None, "not finite": None}
    pace = done / (time.monotonic() - started)
    return {
        "scorer": name,
        "targets": done,
        "targets/s": pace,
        "not finite": bad,
        f"s for the challenge's text on {CARDS}": None if dry else CHALLENGE_TARGETS / pace / CARDS,
    }
