"""Learning rate and momentum as pure functions of progress, the part of the run that is done: 0 to 1.

Progress, not steps, so that a run under a wall-clock cap and one without share the same rules.
"""


def progress(step: int, steps: int, seconds: float, max_seconds: float) -> float:
    """How far the run is before `step` (counted from 0): by steps, or by training time if a cap runs out earlier."""
    by_time = seconds / max_seconds if max_seconds else 0.0
    return min(max(step / steps, by_time), 1.0)


def lr_multiplier(done: float, *, warmdown: float, min_lr: float = 0.0) -> float:
    """1, then a straight line to 0 over the last `warmdown` of the run, never below `min_lr`.

    There is no warm-up: Muon's update has a fixed size and AdamW starts on near-zero embeddings.
    Source: the records of the challenge; the wall-clock rule of pull request 162 is this one at a constant step time.
    """
    left = 1.0 - done
    return 1.0 if left >= warmdown else max(left / warmdown, min_lr)


def momentum(done: float, *, limits: tuple[float, float], warmup: float) -> float:
    """From the first limit to the second, in a straight line over the first `warmup` of the run."""
    low, high = limits
    return high if done >= warmup else low + (high - low) * done / warmup
