"""The validation score that training commands hand to the trainer."""

from pathlib import Path
from typing import TYPE_CHECKING

from codec.progress import Progress, silent
from pgolf.console import TimeLeft

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


class TrainingBar:
    """The bar of a run, which stands still while the model is validated and then tells of that."""

    def __init__(self, report: Progress, targets: int) -> None:
        self._report, self._targets, self._step = report, targets, 0
        self._left = TimeLeft(targets)

    def step(self, done: int, note: str) -> None:
        """Steps done."""
        self._step = done
        self._report(done, note)

    def validating(self, done: int, note: str) -> None:
        """Targets done."""
        self._left.tell(done)
        self._report(self._step, f"validating, {100 * done // self._targets} %, {note}{self._left}")


def sliding_evaluation(
    heldout: "HeldOut", length: int, stride: int = STRIDE, progress: Progress = silent
) -> "Evaluate":
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
        score = total(scorer, heldout.tokens, heldout.token_bytes, batch=BATCH, ranks=ranks, progress=progress)
        return score.loss, score.bpb

    return evaluate
