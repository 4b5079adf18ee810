"""Scores of a model that runs in another process, fixed or adapting: what it is fitted to is decided here."""

from typing import Any

from torch import Tensor

from codec.errors import InputError
from verify.sandbox.model_server import described
from verify.sandbox.remote_model import Remote
from verify.scoring.adaptation import Adaptation, ScorerName
from verify.scoring.ranks import Ranks
from verify.scoring.scorer import Scorer
from verify.scoring.sliding import Sliding
from verify.scoring.slot import ContextSlot
from verify.scoring.ttt import UPDATES, ScoreFirst, Update


class RemoteLearner:
    """A copy of the model that learns in its process; see `verify.scoring.ttt.Learning`.  Sent revealed tokens only.

    Raises (all methods): as `Remote`; UsageError for more frozen blocks than there are.
    """

    def __init__(self, model: Remote, *, update: Update, clip: float, frozen_blocks: int) -> None:
        self.model = model.asked(learner=True)
        self.model.tell("learn", update=described(update), clip=clip, frozen_blocks=frozen_blocks)

    def digest(self) -> str:
        """None: the process could say what it likes, and could tell from the question that it is audited."""
        return ""

    def train(self, ids: Tensor, *, length: int, epochs: int, sequences: int, lr: float, ranks: Ranks) -> None:
        """See `Learner.train`."""
        how = {"length": length, "epochs": epochs, "sequences": sequences, "lr": lr, "ranks": ranks.count}
        self.model.tell("train", ids, **how)


class RemoteShifts:
    """The model with shifts that its process fits; see `verify.scoring.slot.Shifting`.

    The targets of a row's context are inputs of the same row, so a request says nothing about those to be scored that
    it does not say without shifts.
    """

    adapt = None

    def __init__(self, model: Remote, *, steps: int, lr: float) -> None:
        self.model = model.asked(slot={"steps": steps, "lr": lr})

    def digest(self) -> str:
        """None, as `RemoteLearner.digest`."""
        return ""


def scorer_of(
    kind: ScorerName,
    model: Remote,
    adaptation: Adaptation,
    *,
    vocab_size: int,
    targets: int,
    length: int,
    stride: int,
    evidence: bool = False,
    name: str = "",
) -> Scorer:
    """A scorer over a model in another process.  targets: of the text.  evidence: see `Sliding`.  name: else its kind.

    Raises: InputError when the model lacks what the scorer needs; UsageError for settings that make no sense.
    """
    if kind in model.lacks:
        raise InputError(model.lacks[kind], where=model.where, hint="score it by sliding")
    common: dict[str, Any] = {
        "model": model,
        "vocab_size": vocab_size,
        "length": length,
        "stride": stride,
        "evidence": evidence,
        "name": name or kind,
    }
    if kind == "sliding":
        return Sliding(**common)
    if kind == "slot":
        return ContextSlot(**common, steps=adaptation.slot_steps, lr=adaptation.slot_lr, shifts=RemoteShifts)
    return ScoreFirst(
        **common,
        chunk=adaptation.chunk_of(targets, length),
        epochs=adaptation.epochs,
        sequences=adaptation.sequences,
        lr=adaptation.lr,
        update=UPDATES[adaptation.update](),
        frozen_blocks=adaptation.frozen_blocks,
        learner=RemoteLearner,
    )
