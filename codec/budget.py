"""The challenge's limits, as dated data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of the rules as they stood on the day `dated`.

    total_bytes: code plus compressed weights, decimal megabytes.  train_seconds and eval_seconds: on 8 H100,
    each for itself.  record_nats: a record must be better by so many nats per token, shown at p < record_p.
    """

    dated: str
    source: str
    total_bytes: int
    train_seconds: int
    eval_seconds: int
    record_nats: float
    record_p: float


PARAMETER_GOLF = Budget(
    dated="2026-11-22",
    source="README of openai/parameter-golf",
    total_bytes=16_000_000,
    train_seconds=600,
    eval_seconds=600,
    record_nats=0.005,
    record_p=0.01,
)
