"""A toy to cheat with: a few documents of repetitive text, one token per character, and a model of 400 weights.

The arithmetic treats every position by itself, elementwise and in one order, so that honest scorers are bit-identical
whatever else is in a batch.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from verify.scoring.scorer import Scored
from verify.scoring.token_bytes import BOS
from verify.scoring.windows import Window, plan

DOCUMENTS = (
    "the cat sat on the mat and the cat ran",
    "a naïve café — the cat sat on the mat",
    "the dog ran and the cat sat on the dog",
    "tea and cake",
    "the café sat on the mat and the cat ran on",
    "a dog — a naïve dog — ate the cake",
)
CHARACTERS = tuple(sorted(set("".join(DOCUMENTS))))
FIRST_CHARACTER = 2  # 0 is padding, as in the challenge's tokenizers
VOCAB = FIRST_CHARACTER + len(CHARACTERS)
WIDTH = 8
LENGTH, STRIDE, CHUNK = 32, 8, 48  # tokens of a window, targets it scores, targets between updates
REACH, DECAY = 8, 0.6  # tokens that a hidden state depends on; what is left of one after each position
SEED = 17
HELD_OUT = "heldout.bin"  # file of the text, for who looks
Steps = Callable[[np.ndarray, int, int], Iterator[Scored]]  # of tokens (n + 1,), batch, ranks


@dataclass(frozen=True, slots=True)
class Procedure:
    """A scorer given by a generator function."""

    name: str
    steps: Steps
    vocab_size: int = VOCAB

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int = 1) -> Iterator[Scored]:
        """See `Scorer`."""
        return self.steps(tokens, batch, ranks)


class Model:
    """Two matrices: embed (V, D) stays, out (D, V) learns.  Each instance starts as the artifact."""

    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        self.embed = rng.normal(0, 1, (VOCAB, WIDTH))
        self.out = rng.normal(0, 0.5, (WIDTH, VOCAB))

    def hidden(self, ids: np.ndarray) -> np.ndarray:
        """ids (T,) -> (T, D): a decaying sum over the last REACH tokens."""
        rows = self.embed[ids]
        states: np.ndarray = rows.copy()
        for back in range(1, REACH):
            states[back:] += DECAY**back * rows[:-back]
        return states

    def log_probs(self, hidden: np.ndarray) -> np.ndarray:
        """(T, D) -> natural logarithms (T, V)."""
        return log_softmax((hidden[:, :, None] * self.out).sum(1))

    def slope(self, hidden: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Gradient (T, V) of each position's loss with respect to its logits."""
        slope: np.ndarray = np.exp(self.log_probs(hidden))
        slope[np.arange(len(targets)), targets] -= 1
        return slope

    def learn(self, ids: np.ndarray, lr: float = 0.5) -> None:
        """One step on the mean loss of ids (T + 1,)."""
        hidden = self.hidden(ids[:-1])
        slope = self.slope(hidden, ids[1:])
        self.out = self.out - lr * (hidden[:, :, None] * slope[:, None]).mean(0)

    def fit_shift(self, contexts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """A shift (D,) of hidden states that lowers the loss over all of (hidden (T, D), targets (T,)) together."""
        steps, lr = 4, 2.0
        hidden = np.concatenate([hidden for hidden, _ in contexts])
        targets = np.concatenate([targets for _, targets in contexts])
        shift = np.zeros(WIDTH)
        for _ in range(steps if len(targets) else 0):
            slope = self.slope(hidden + shift, targets)
            shift = shift - lr * (slope[:, None] * self.out).sum(2).mean(0)
        return shift

    def digest(self, *more: np.ndarray) -> str:
        """Names the weights and whatever else the state holds."""
        return hashlib.sha256(b"".join(array.tobytes() for array in (self.embed, self.out, *more))).hexdigest()


@cache
def stream() -> np.ndarray:
    """The documents as int64 tokens (n + 1,), each behind a BOS."""
    ids = [i for document in DOCUMENTS for i in (BOS, *(FIRST_CHARACTER + CHARACTERS.index(c) for c in document))]
    return np.array(ids, np.int64)


def target_bytes(tokens: np.ndarray) -> np.ndarray:
    """UTF-8 bytes of each target, int64 (n,)."""
    sizes = [0] * FIRST_CHARACTER + [len(character.encode()) for character in CHARACTERS]
    return np.take(np.array(sizes, np.int64), tokens[1:])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    normalized: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalized


def groups(tokens: np.ndarray, batch: int, ranks: int) -> Iterator[list[Window]]:
    """Sliding windows in batches; each rank takes a contiguous part."""
    windows = plan(len(tokens) - 1, LENGTH, STRIDE)
    for rank in range(ranks):
        part = windows[len(windows) * rank // ranks : len(windows) * (rank + 1) // ranks]
        yield from (part[first : first + batch] for first in range(0, len(part), batch))


def rows_of(model: Model, tokens: np.ndarray, window: Window, shift: np.ndarray | float = 0.0) -> np.ndarray:
    """Log-probabilities (k, V) of the positions that a window scores."""
    hidden = model.hidden(tokens[window.start : window.stop])
    return model.log_probs(hidden[window.first_scored - window.start :] + shift)


def positions_of(window: Window) -> np.ndarray:
    """int64 (k,): what a window scores."""
    return np.arange(window.first_scored, window.stop)


def scores_of(tokens: np.ndarray, positions: np.ndarray, rows: np.ndarray, digest: str) -> Scored:
    """Scores with the distributions they come from."""
    nats = -rows[np.arange(len(rows)), tokens[positions + 1]]
    return Scored(positions=positions, nats=nats, log_probs=rows, digest=digest)


def slide(model: Model, tokens: np.ndarray, windows: Sequence[Window], digest: str) -> Scored:
    """One batch of windows with the model as it is."""
    positions = np.concatenate([positions_of(window) for window in windows])
    rows = np.concatenate([rows_of(model, tokens, window) for window in windows])
    return scores_of(tokens, positions, rows, digest)


class Counts:
    """What followed each pair of tokens so far."""

    def __init__(self) -> None:
        self.table = np.zeros((VOCAB, VOCAB, VOCAB), np.uint16)

    def see(self, tokens: np.ndarray) -> None:
        """Count all triples of tokens (k,)."""
        np.add.at(self.table, (tokens[:-2], tokens[1:-1], tokens[2:]), 1)

    def after(self, tokens: np.ndarray, position: int) -> np.ndarray:
        """Counts (V,) for the target of a position."""
        after: np.ndarray = self.table[tokens[max(position - 1, 0)], tokens[position]]
        return after
