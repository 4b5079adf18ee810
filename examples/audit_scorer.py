"""Audit a scorer of your own: one that is honest, and one that looks at the token it is asked about.

python examples/audit_scorer.py
"""

from collections.abc import Iterator

import numpy as np

from verify import Scored
from verify.audit import Scope, audit

VOCABULARY = 32


class Counting:
    """A cache of unigrams: the chance of a token by how often it came before.  peeking: counts the target first."""

    vocab_size = VOCABULARY

    def __init__(self, peeking: bool) -> None:
        self.peeking, self.name = peeking, "peeking" if peeking else "honest"

    def run(self, tokens: np.ndarray, *, batch: int, ranks: int = 1) -> Iterator[Scored]:
        counts = np.ones(VOCABULARY)
        counts[tokens[0]] += 1
        for position, token in enumerate(tokens[1:]):
            seen = counts.copy()
            seen[token] += self.peeking
            row = np.log(seen / seen.sum())
            yield Scored(positions=np.array([position]), nats=np.array([-row[token]]), log_probs=row[None])
            counts[token] += 1


def main() -> None:
    tokens = np.random.default_rng(0).integers(VOCABULARY, size=120)
    for scorer in (Counting(peeking=False), Counting(peeking=True)):
        found = audit(scorer, tokens, Scope(bos=None, cuts=10, sums=2, coded=16))
        print(f"{scorer.name}: {found.verdict}")
        for finding in found.violations:
            print(f"  {finding.rule}: {finding.message}")


if __name__ == "__main__":
    main()
