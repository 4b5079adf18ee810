"""Whether a model reads ahead in the windows it is scored by: some of them again, with another text behind a cut."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import torch

from verify.audit.causality_rules import FLOAT
from verify.audit.trace import Difference, largest_difference
from verify.sandbox.launch import Settings, running
from verify.sandbox.remote_model import Remote
from verify.scoring.heldout import HeldOut
from verify.scoring.reservoir import Sample
from verify.scoring.scorer import Scored
from verify.scoring.token_stream import predict
from verify.scoring.windows import Window, plan
from verify.submission.folder import Submission

CHOICES = 1 << 16  # tokens from whose ids the other text is drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixProbe:
    """What became of scored batches with another text behind a cut; batches and moved: how many, and how many changed.

    worst: the largest change of a score up to its row's cut, or None; cut: the last position before the other text;
    window: start and stop of the tokens around it; noise: the largest change, in nats, of the same batch without
    another text.  tolerance: nats up to which scores are the same.
    """

    batches: int
    moved: int = 0
    worst: Difference | None = None
    cut: int = -1
    window: tuple[int, int] = (0, 0)
    noise: float = 0.0
    tolerance: float = FLOAT


def probe_prefix(submission: Submission, heldout: HeldOut, settings: Settings, sample: Sample) -> PrefixProbe:
    """Send batches that were scored again, with another text behind a cut: up to it, probabilities are to stay.

    A second process is asked: it has not seen the text, so it cannot repeat what the first one said by heart, and a
    script that behaves in its first requests contradicts what it said in later ones.  Every row has a cut of its own
    or, for each other batch, all have the same, so that rows cannot tell each other what follows.

    settings.length: as scored.  sample: of the run that scored.  Raises: as `verify.sandbox.launch.running`.
    """
    batches = sample.batches
    windows = plan(heldout.targets, settings.length or 0, settings.stride)
    with running(submission, submission.blob, settings) as model:
        probes = [_Probe(scored, windows, heldout.tokens) for scored in batches]
        found = [
            (probe.changed(model, sample.rng, common=number % 2 == 1), probe) for number, probe in enumerate(probes)
        ]
        moved = [(one, cut, probe) for (one, cut), probe in found if one]
        if not moved:
            return PrefixProbe(batches=len(batches))
        worst, cut, probe = max(moved, key=lambda each: each[0].size)
        alone = probe.repeated(model)
    where = next(window for window in probe.windows if window.first_scored <= worst.position < window.stop)
    return PrefixProbe(
        batches=len(batches),
        moved=len(moved),
        worst=worst,
        cut=cut,
        window=(where.start, where.stop),
        noise=alone.size if alone else 0.0,
    )


class _Probe:
    """One scored batch, and what another process says of its windows."""

    def __init__(self, scored: Scored, plan: list[Window], tokens: np.ndarray) -> None:
        at = bisect_left(plan, int(scored.positions[0]), key=lambda window: window.first_scored)
        self.windows = plan[at : at + scored.windows]
        self._before, self._positions, self._tokens = scored.nats, scored.positions, tokens

    def changed(self, model: Remote, rng: np.random.Generator, *, common: bool) -> tuple[Difference | None, int]:
        """The largest difference at positions up to their row's cut, and that cut.  common: one cut for all rows."""
        first = np.array([window.first_scored for window in self.windows])
        last = np.array([max(window.first_scored, window.stop - 2) for window in self.windows])
        cuts = rng.integers(first, last + 1)
        if common:  # in a row that others follow: at its end they alone know more
            row = rng.integers(max(len(cuts) - 1, 1))
            cuts[:] = rng.choice([cuts[row], self.windows[row].stop - 1])
        ids = self._ids()
        later = np.stack([np.arange(window.start, window.stop) for window in self.windows]) > cuts[:, None]
        others = rng.choice(np.unique(self._tokens[:CHOICES]), ids.shape)
        rows = np.repeat(cuts, len(self._positions) // len(self.windows))
        found = self._difference(model, np.where(later, others, ids), self._positions <= rows)
        return found, int(rows[found.position - self._positions[0]]) if found else -1

    def repeated(self, model: Remote) -> Difference | None:
        """The largest difference without any change."""
        return self._difference(model, self._ids(), np.ones(len(self._positions), bool))

    def _ids(self) -> np.ndarray:
        return np.stack([self._tokens[window.start : window.stop] for window in self.windows]).astype(np.int64)

    @torch.no_grad()
    def _difference(self, model: Remote, ids: np.ndarray, known: np.ndarray) -> Difference | None:
        context = self.windows[0].first_scored - self.windows[0].start
        log_probs = predict(model, torch.from_numpy(ids), context).flatten(0, 1).float().log_softmax(-1)
        targets = torch.from_numpy(self._tokens[self._positions + 1].astype(np.int64))
        after = -log_probs.gather(1, targets[:, None])[:, 0].double().numpy()
        return largest_difference("score", self._positions[known], self._before[known], after[known], FLOAT)
