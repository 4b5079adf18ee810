import numpy as np

from verify.scoring.reservoir import MOST, Sample
from verify.scoring.scorer import Scored


def test_any_batch_may_be_among_those_looked_at():
    class Numbers:
        name, vocab_size = "numbers", 7

        def run(self, tokens, *, batch, ranks=1):
            for number in range(1000):
                yield Scored(positions=np.array([number]), nats=np.zeros(1), windows=1)

    times = np.zeros(1000, int)
    for seed in range(300):
        sample = Sample(np.random.default_rng(seed))
        assert sum(1 for _ in sample.of(Numbers()).run(np.zeros(2), batch=1)) == 1000
        chosen = [int(scored.positions[0]) for scored in sample.batches]
        assert len(set(chosen)) == len(chosen) == MOST
        times[chosen] += 1
    quarters = times.reshape(4, 250).sum(1)  # 2,400 expected in each, deviation 42
    assert abs(quarters - 2400).max() < 250
    assert len(Sample().batches) == 0
