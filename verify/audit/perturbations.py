"""Streams changed where a legal scorer cannot see it yet, and what must then stay as it was."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from codec.errors import UsageError
from verify.audit.trace import Trace

REPEATED = "repeated context"
LONGER_BY = 5  # tokens a later document grows by: no multiple of a stride or window


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How thoroughly to audit.

    batch, ranks: as given to Scorer.run, ranks for the part of the audit that splits windows.  bos: the id that
    starts a document, None without documents.  periods: stride, window length, chunk of the scorer, in tokens: it is
    cut at their multiples.  cuts, sums, coded: how many suffixes to replace, positions to sum over the vocabulary,
    targets to code.  queue: the scorer declares that it takes documents in another order than the stream's.

    Raises: UsageError when a number is not positive.
    """

    batch: int = 4
    ranks: int = 2
    bos: int | None = 1
    periods: tuple[int, ...] = ()
    cuts: int = 40
    sums: int = 6
    coded: int = 64
    seed: int = 0
    queue: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "ranks", "cuts", "sums", "coded"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, need at least 1")
        if any(period < 1 for period in self.periods):
            raise UsageError(f"periods {self.periods}, need numbers of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """A changed stream.  tokens: integers (n + 1,), equal to the original up to tokens[cut].

    known: bool (n,), positions whose score must stay.  row: position whose distribution must stay, or None.
    why: what is special about the cut, or what was done to the stream.
    """

    cut: int
    tokens: np.ndarray
    known: np.ndarray
    row: int | None
    why: str


def suffixes(tokens: np.ndarray, cuts: dict[int, str], order: np.ndarray, scope: Scope) -> Iterator[Perturbation]:
    """For each cut: every target from position cut on is another id; what starts a document stays where it is.

    order: int64 (n,), positions as they are committed; 0, 1, ... unless the scorer declares a queue.
    """
    place = np.argsort(order)
    for cut, why in cuts.items():
        unseen = order[place[cut] :]
        known = np.ones(len(order), bool)
        known[unseen] = False
        changed = tokens.copy()
        changed[unseen + 1] = others(tokens[unseen + 1], tokens, scope, cut)
        yield Perturbation(cut=cut, tokens=changed, known=known, row=cut, why=why)


def substitutions(tokens: np.ndarray, position: int, ids: Iterable[int]) -> Iterator[Perturbation]:
    """The target of one position replaced by each of some ids, its own among them or not."""
    nothing = np.zeros(len(tokens) - 1, bool)
    for v in ids:
        changed = tokens.copy()
        changed[position + 1] = v
        yield Perturbation(cut=position, tokens=changed, known=nothing, row=position, why=f"target {v}")


def structures(tokens: np.ndarray, cuts: list[int], scope: Scope) -> Iterator[Perturbation]:
    """Other document starts and lengths after each cut; the number of tokens stays.  Nothing without documents."""
    if scope.bos is None:
        return
    text = tokens[tokens != scope.bos]
    for cut in cuts:
        head, rest = tokens[: cut + 2], tokens[cut + 2 :]
        edits = {
            "a document start inserted": np.insert(rest, len(rest) // 2, scope.bos),
            "a later document longer": np.insert(rest, len(rest) // 2, text[:LONGER_BY]),
            "document starts removed": np.concatenate([rest[rest != scope.bos], text]),
        }
        for why, edited in edits.items():
            changed = np.concatenate([head, edited])[: len(tokens)]
            known = np.arange(len(tokens) - 1) <= cut
            if len(changed) == len(tokens) and not np.array_equal(changed, tokens):
                yield Perturbation(cut=cut, tokens=changed, known=known, row=None, why=why)


def others(ids: np.ndarray, tokens: np.ndarray, scope: Scope, salt: int) -> np.ndarray:
    """For each id another one out of those that occur in tokens; what starts a document stays.

    Raises: UsageError when the stream has too few different ids to choose from.
    """
    choices = np.unique(tokens[tokens != scope.bos])
    if len(choices) < 3:
        raise UsageError(
            f"the stream has {len(choices)} different ids besides document starts, need at least 3",
            hint="audit on real text",
        )
    steps = np.random.default_rng([scope.seed, salt]).integers(1, len(choices), len(ids))
    drawn = choices[(np.searchsorted(choices, ids) + steps) % len(choices)]
    return np.where(ids == scope.bos, ids, drawn)


def choose_cuts(base: Trace, tokens: np.ndarray, scope: Scope) -> dict[int, str]:
    """position -> why: a fair share of every kind of edge, and positions inside; in order."""
    targets = len(tokens) - 1
    edges = {
        "batch edge": [int(batch.min()) for batch in base.batches() if len(batch)],
        "document edge": np.flatnonzero(tokens == scope.bos).tolist(),
        "rank split": [targets * rank // scope.ranks for rank in range(1, scope.ranks)],
        "tail": [targets - 1, targets - 1 - min(scope.periods, default=1)],
        **{f"multiple of {period}": range(period, targets, period) for period in scope.periods},
    }
    near = {why: {at + step for at in places for step in (-1, 0, 1)} for why, places in edges.items()}
    near |= {REPEATED: set(repeats(tokens).tolist()), "inside": set(range(targets))}
    chosen: dict[int, str] = {}
    for number, (why, places) in enumerate(near.items()):
        free = sorted(place for place in places if 0 <= place < targets and place not in chosen)
        share = (scope.cuts - len(chosen)) // (len(near) - number)
        chosen |= dict.fromkeys(evenly(free, share), why)
    return dict(sorted(chosen.items()))


def choose_sums(cuts: dict[int, str], count: int) -> list[int]:
    """At most count of the cuts, half of them where the context came before: there caches and hints speak."""
    repeated = [cut for cut, why in cuts.items() if why == REPEATED]
    chosen = evenly(repeated, (count + 1) // 2)
    return sorted(chosen + evenly([cut for cut in cuts if cut not in chosen], count - len(chosen)))


def made_up(vocab_size: int, targets: int, scope: Scope) -> np.ndarray:
    """Tokens int64 (targets + 1,) of documents that repeat a few phrases, as text does.

    Raises: UsageError for fewer than 8 ids.
    """
    if vocab_size < 8:
        raise UsageError(f"a vocabulary of {vocab_size} is too small to make up text, need 8", hint="pass --data")
    rng = np.random.default_rng(scope.seed)
    ids = np.setdiff1d(np.arange(vocab_size), [0, 1, 2, 3, scope.bos or 0])  # 0 to 3 are control ids
    phrases = [rng.choice(ids, length) for length in (3, 4, 5, 6, 7, 9)]
    start = [] if scope.bos is None else [np.array([scope.bos])]
    documents = [part for _ in range(targets + 1) for part in (*start, *(phrases[i] for i in rng.integers(0, 6, 5)))]
    return np.concatenate(documents)[: targets + 1]


def evenly(places: list[int], count: int) -> list[int]:
    """At most count of the places, spread over all of them."""
    if count >= len(places):
        return places
    return [places[(2 * i + 1) * len(places) // (2 * count)] for i in range(count)]


def repeats(tokens: np.ndarray) -> np.ndarray:
    """Positions whose last two input tokens came before: there n-gram caches and hints speak up."""
    seen: set[tuple[int, ...]] = set()
    found = []
    for position in range(1, len(tokens) - 1):
        context = tuple(tokens[position - 1 : position + 1].tolist())
        if context in seen:
            found.append(position)
        seen.add(context)
    return np.array(found, np.int64)
