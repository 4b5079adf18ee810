"""The validation score that training commands hand to the trainer."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.model.gpt import GPT
    from trainer.presets.preset import Preset
    from trainer.run.loop import Evaluate
    from verify.scoring.heldout import HeldOut

STRIDE = 64  # targets scored per window, the challenge's choice
BATCH = 16  # windows per forward pass of a validation


def fit_vocabulary(preset: "Preset", tokenizer: Path) -> "Preset":
    """The preset with the tokenizer's vocabulary size; the record's own size is part of what it is.

    Raises: UsageError when a record's preset meets another vocabulary; InputError for an unusable tokenizer.
    """
    from verify.scoring.token_bytes import TokenBytes

    return preset.with_vocabulary(len(TokenBytes.from_tokenizer(tokenizer).length), str(tokenizer))


def sliding_evaluation(heldout: "HeldOut", length: int, stride: int = STRIDE) -> "Evaluate":
    """(val_loss, val_bpb) of a model by exact sliding windows over the held-out targets, which ranks share."""
    import torch

    from trainer.compute.ranks import failures_mean_loss
    from verify.scoring.ranks import Ranks
    from verify.scoring.score import total
    from verify.scoring.sliding import Sliding

    def evaluate(model: "GPT") -> tuple[float, float]:
        scorer = Sliding(
            model=model,
            vocab_size=model.config.vocab_size,
            length=length,
            stride=min(stride, length),
            device=model.tok_emb.weight.device,
        )
        ranks = Ranks.joined(failures_mean_loss) if torch.distributed.is_initialized() else 1
        score = total(scorer, heldout.tokens, heldout.token_bytes, batch=BATCH, ranks=ranks)
        return score.loss, score.bpb

    return evaluate
