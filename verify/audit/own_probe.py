"""Whether a script that adapts by itself reads ahead: its run again, now and then with another text behind a cut."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from codec.errors import InputError
from codec.progress import Progress, silent
from verify.audit.causality_rules import FLOAT
from verify.audit.trace import Difference, largest_difference
from verify.reveal.stretches import OwnStatement
from verify.sandbox.launch import Settings, running
from verify.sandbox.own_scorer import OwnScorer, Turn
from verify.sandbox.remote_scorers import scorer_of
from verify.scoring.heldout import HeldOut
from verify.scoring.reservoir import Sample
from verify.scoring.scorer import Scored
from verify.scoring.token_stream import predict
from verify.scoring.windows import Window
from verify.submission.folder import Submission

CUTS = 4  # of each batch that is looked at; a cut costs one request


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnProbe:
    """What became of scored batches in another process to which the same text was revealed.

    batches, cuts: how many were asked again, and how often with another text behind a cut.  moved: batches whose scores
    up to a cut were others.  worst: the largest such change, behind `cut`.  alone: the largest difference of a batch
    that was asked unchanged, or None.  tolerance: nats up to which scores are the same.
    """

    batches: int
    cuts: int
    moved: int = 0
    worst: Difference | None = None
    cut: int = -1
    alone: Difference | None = None
    tolerance: float = FLOAT

    @property
    def noise(self) -> float:
        """Nats by which a score differs behind which nothing changed."""
        return self.alone.size if self.alone else 0.0


def probe_own(
    submission: Submission,
    heldout: HeldOut,
    settings: Settings,
    statement: OwnStatement,
    sample: Sample,
    progress: Progress = silent,
) -> OwnProbe:
    """Reveal the text again to a second process, and ask it for the batches of a sample when it is their turn.

    It is asked for nothing else, and first with other text behind a cut, so a state that comes from requests, and not
    from what was revealed, shows as well.  Up to a cut scores are to be those that the first process gave.  It ends
    with the last batch of the sample: revealing costs what the script's learning costs, and no more.

    settings.length: as scored.  statement, sample: of the run that scored.  progress: told the targets passed.
    Raises: as `verify.sandbox.launch.running`; InputError when it states something else now.
    """
    kept = {int(scored.positions[0]): scored for scored in sample.batches}
    found, alone, count = list[tuple[int, int, Difference]](), list[Difference](), 0
    with running(submission, submission.blob, settings) as model:
        scorer = scorer_of(
            "own",
            model,
            settings.adaptation,
            vocab_size=0,
            targets=heldout.targets,
            length=settings.length or 0,
            stride=settings.stride,
        )
        if not isinstance(scorer, OwnScorer):
            raise InputError("does not adapt by itself", where=model.where)
        if model.begin(heldout.targets) != statement:
            raise InputError("states another adaptation in each process", where=model.where)
        for turn, group in _asked(scorer, scorer.turns(heldout.tokens, statement), settings.batch, kept, progress):
            asked = _Batch(scorer, turn, group, kept[turn.part.start + group[0].first_scored], heldout.tokens)
            for cut in asked.cuts(sample.rng):
                count += 1
                if moved := asked.changed(cut, sample.rng):
                    found.append((asked.first, cut, moved))
            if moved := asked.repeated():
                alone.append(moved)
    worst = max(found, key=lambda each: each[2].size, default=None)
    probe = OwnProbe(
        batches=len(kept), cuts=count, alone=max(alone, key=lambda difference: difference.size, default=None)
    )
    if worst is None:
        return probe
    return replace(probe, moved=len({first for first, _, _ in found}), worst=worst[2], cut=worst[1])


def _asked(
    scorer: OwnScorer, turns: Iterator[Turn], batch: int, kept: dict[int, Scored], progress: Progress
) -> Iterator[tuple[Turn, list[Window]]]:
    """The batches that were kept, each when all stretches before its own are revealed."""
    left, last, done = set(kept), None, 0
    for turn in turns:
        if not left:
            return
        if last:
            scorer.reveal(last)
        for group in turn.batches(turn.stretch.windows, batch):
            first = turn.part.start + group[0].first_scored
            if first in left:
                left.remove(first)
                yield turn, group
        scorer.pass_over(turn)
        last, done = turn, done + turn.stretch.stop - turn.stretch.start
        progress(done, "")


class _Batch:
    """One scored batch, and what the second process says of its windows."""

    def __init__(self, scorer: OwnScorer, turn: Turn, group: list[Window], before: Scored, tokens: np.ndarray) -> None:
        self._scorer, self._turn, self._group = scorer, turn, group
        self._before, self._tokens = before.nats, tokens
        self.first = turn.part.start + group[0].first_scored
        self._stop = self.first + len(before.nats)

    def cuts(self, rng: np.random.Generator) -> list[int]:
        """Scored positions behind which a request may still hold a token; none in a batch of one position."""
        places = np.arange(self.first, self._stop - (0 if self._turn.stretch.reach else 1))
        return sorted(rng.choice(places, min(CUTS, len(places)), replace=False).tolist())

    def changed(self, cut: int, rng: np.random.Generator) -> Difference | None:
        """The largest difference up to a cut when another part of the text follows, to the end of every row."""
        text, begin = self._tokens.copy(), self._turn.part.start + self._group[0].start
        size = self._stop + self._turn.stretch.reach - cut
        others = np.resize(self._tokens[int(rng.integers(len(text))) :], size)
        text[cut + 1 : self._stop] = others[: self._stop - cut - 1]
        rows = self._turn.rows(self._group, text)
        if self._turn.stretch.reach:  # then it is one row, which may go on behind its document
            rows[0, cut + 1 - begin :] = others[: rows.shape[1] - (cut + 1 - begin)]
        return self._difference(rows, cut)

    def repeated(self) -> Difference | None:
        """The largest difference without any change."""
        return self._difference(self._turn.rows(self._group, self._tokens), self._stop - 1)

    @torch.no_grad()
    def _difference(self, rows: np.ndarray, cut: int) -> Difference | None:
        windows = torch.zeros(len(self._group), self._group[0].stop - self._group[0].start)
        model, context = self._scorer.asked(self._turn, self._group, rows), self._group[0]
        logits = predict(model, windows, context.first_scored - context.start)
        log_probs = logits.flatten(0, 1).float().log_softmax(-1)
        positions = np.arange(self.first, cut + 1)
        targets = torch.from_numpy(self._tokens[positions + 1].astype(np.int64))
        after = -log_probs[: len(positions)].gather(1, targets[:, None])[:, 0].double().numpy()
        return largest_difference("score", positions, self._before[: len(positions)], after, FLOAT)
