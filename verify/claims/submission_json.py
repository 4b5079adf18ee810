"""What a submission.json states, in the variants of the field, with the digits it was written with.

Numbers come as numbers or strings; seeds as a list, as keys of results, or not at all; results per seed as objects or
bare scores; sizes as total, largest or mean.  Nothing here is believed: group_rules holds it against the logs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from codec.errors import InputError
from codec.storage.json_file import read_json_object

PER_SEED = ("seed_results", "val_bpb_seeds", "val_bpb_per_seed", "per_seed", "seeds")
MEAN_TOTAL = ("artifact_bytes_mean",)
TOTAL = ("bytes_total", "artifact_bytes", "artifact_bytes_max", "total_bytes")
LARGEST = 300  # powers of ten that a float can hold
STATISTIC = re.compile(r"(^|_)p_?val|(^|_)p$|(^|_)[zt]_?(stat|score|test|value)|statistic|welch", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedStatement:
    """One seed's results; None where not stated.  total: bytes."""

    seed: int
    bpb: Decimal | None
    loss: Decimal | None
    total: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One submission.json.  bpb, sd, loss, total, float_bpb (before quantization): of the whole record.

    mean_total: bytes, of all seeds together, where a mean is stated instead of a size.

    seeds: with results; seed_numbers: all that are named.  statistics: numbers under keys that speak of a test.
    raw: the object as read, floats as Decimal.
    """

    path: Path
    bpb: Decimal | None
    sd: Decimal | None
    loss: Decimal | None
    total: Decimal | None
    mean_total: Decimal | None
    float_bpb: Decimal | None
    seeds: tuple[SeedStatement, ...]
    seed_numbers: tuple[int, ...]
    statistics: dict[str, Decimal]
    raw: dict[str, Any]

    def of(self, seed: int | None) -> SeedStatement | None:
        """What is stated of that seed."""
        return next((each for each in self.seeds if each.seed == seed), None)


def read_statement(path: str | Path) -> Statement:
    """Read a submission.json.

    Raises: InputError when it is missing, not JSON, or not an object.
    """
    path = Path(path)
    raw = read_json_object(path, parse_float=_exact)
    try:
        statistics = dict(_statistics(raw))
    except RecursionError:
        raise InputError("is nested too deep", where=str(path), hint="write it again") from None
    seeds = tuple(_seeds(raw))
    return Statement(
        path=path,
        bpb=_first(raw, ("val_bpb", "mean_bpb", "val_bpb_mean")),
        sd=_first(raw, ("val_bpb_std", "std_bpb", "val_bpb_sd")),
        loss=_first(raw, ("val_loss", "mean_val_loss_nats", "val_loss_mean")),
        total=_first(raw, TOTAL),
        mean_total=_first(raw, MEAN_TOTAL),
        float_bpb=_first(raw, ("pre_quant_val_bpb",)),
        seeds=seeds,
        seed_numbers=_seed_numbers(raw) or tuple(each.seed for each in seeds),
        statistics=statistics,
        raw=raw,
    )


def artifact_seed(raw: dict[str, Any]) -> int | None:
    """Whose artifact lies in the folder, when `artifact_seed` says so: a record of several seeds holds one."""
    seed = raw.get("artifact_seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def artifact_bpb(raw: dict[str, Any]) -> Decimal | None:
    """What is stated of that seed: its artifact's score, where `val_bpb` is a mean."""
    seed = artifact_seed(raw)
    return next((each.bpb for each in _seeds(raw) if each.seed == seed), None)


def mean_contradiction(raw: dict[str, Any]) -> str:
    """How val_bpb differs from the mean of the results stated for the seeds; "" when it does not, or has none."""
    stated, results = number(raw.get("val_bpb")), [each.bpb for each in _seeds(raw) if each.bpb is not None]
    if stated is None or not results or agrees(stated, float(sum(results) / len(results))):
        return ""
    return f"val_bpb is {stated}, the mean of its {len(results)} seeds {sum(results) / len(results):.8f}"


def _exact(text: str) -> Decimal | None:
    """A float as written; None when its exponent is beyond what a Decimal holds."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def number(value: Any) -> Decimal | None:
    """A number of ordinary size, as stated; None for anything else, also for true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        stated = Decimal(str(value).strip().replace(",", "").replace("_", ""))
    except InvalidOperation:
        return None
    return stated if stated.is_finite() and abs(stated.adjusted()) < LARGEST else None


def agrees(stated: Decimal, computed: float, decimals: int = 17) -> bool:
    """Whether two numbers are the same as far as both are known.

    stated: known to its last digit.  decimals: to which `computed` is known.
    """
    exponent = stated.as_tuple().exponent
    places = max(exponent if isinstance(exponent, int) else 0, -decimals)
    return abs(float(stated) - computed) <= 0.5000001 * 10.0**places


def _first(raw: dict[str, Any], keys: tuple[str, ...]) -> Decimal | None:
    """The first that is stated; no score, size or deviation is below 0."""
    return next((found for key in keys if (found := number(raw.get(key))) is not None and found >= 0), None)


def _seeds(raw: dict[str, Any]) -> Iterator[SeedStatement]:
    results: dict[str, Any] = next((raw[key] for key in PER_SEED if isinstance(raw.get(key), dict)), {})
    for key, stated in results.items():
        if named := re.fullmatch(r"(?:seed[_ -]?)?(\d{1,19})", str(key)):
            one = stated if isinstance(stated, dict) else {"val_bpb": stated}
            yield SeedStatement(
                seed=int(named[1]),
                bpb=_first(one, ("val_bpb", "bpb", "ttt_bpb", "post_ttt_val_bpb")),
                loss=_first(one, ("val_loss", "loss")),
                total=_first(one, TOTAL),
            )


def _seed_numbers(raw: dict[str, Any]) -> tuple[int, ...]:
    listed = raw.get("seeds")
    numbers = [number(each) for each in listed] if isinstance(listed, list) else []
    return tuple(int(each) for each in numbers if each is not None)


def _statistics(raw: Any, name: str = "") -> Iterator[tuple[str, Decimal]]:
    """Every number under a key that speaks of a test, at any depth."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            yield from _statistics(value, f"{name}.{key}" if name else str(key))
    elif STATISTIC.search(name.rpartition(".")[2]) and (found := number(raw)) is not None:
        yield name, found
