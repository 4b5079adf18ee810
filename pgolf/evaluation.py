"""The validation score that training commands hand to the trainer."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from codec.errors import UsageError

if TYPE_CHECKING:
    from trainer.model.gpt import GPT
    from trainer.presets.catalog import Preset
    from trainer.run.loop import Evaluate
    from verify.scoring.heldout import HeldOut

STRIDE = 64  # targets scored per window, the challenge's choice
BATCH = 16  # windows per forward pass of a validation


def fit_vocabulary(preset: "Preset", tokenizer: Path) -> "Preset":
    """The preset with the tokenizer's vocabulary size; the record's own size is part of what it is.

    Raises: UsageError when a record's preset meets another vocabulary; InputError for an unusable tokenizer.
    """
    from verify.scoring.token_bytes import TokenBytes

    pieces = len(TokenBytes.from_tokenizer(tokenizer).length)
    if pieces == preset.model.vocab_size:
        return preset
    if preset.fixed_vocab:
        raise UsageError(
            f"has {pieces} pieces, preset {preset.name} needs {preset.model.vocab_size}",
            where=str(tokenizer),
            hint="pass the tokenizer of that size, or train cpu-demo",
        )
    return replace(preset, model=replace(preset.model, vocab_size=pieces))


def sliding_evaluation(heldout: "HeldOut", length: int) -> "Evaluate":
    """(val_loss, val_bpb) of a model by exact sliding windows over the held-out targets."""
    from verify.scoring.score import total
    from verify.scoring.sliding import Sliding
    from verify.scoring.token_bytes import TokenBytes

    token_bytes = TokenBytes.from_tokenizer(heldout.tokenizer).of(heldout.tokens)

    def evaluate(model: "GPT") -> tuple[float, float]:
        scorer = Sliding(
            model=model,
            vocab_size=model.config.vocab_size,
            length=length,
            stride=min(STRIDE, length),
            device=model.tok_emb.weight.device,
        )
        score = total(scorer, heldout.tokens, token_bytes, batch=BATCH)
        return score.loss, score.bpb

    return evaluate
