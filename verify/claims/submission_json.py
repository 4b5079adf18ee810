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

PER_SEED = ("seed_results", "val_bpb_seeds", "val_bpb_per_seed", "per_seed", "results", "runs", "seeds")
LISTED = ("seed_scores", "val_bpb_seeds", "val_bpbs", "seed_bpbs")  # bare scores in the order of `seeds`
BPB = ("val_bpb", "mean_val_bpb", "val_bpb_mean", "mean_bpb", "bpb")
SEED_BPB = ("val_bpb", "bpb", "ttt_bpb", "post_ttt_val_bpb", "score")
SD = ("val_bpb_std", "std_bpb", "val_bpb_sd", "std_val_bpb", "val_bpb_stdev")
MEAN_TOTAL = ("artifact_bytes_mean", "bytes_total_mean", "mean_bytes_total", "mean_artifact_bytes")
TOTAL = ("bytes_total", "artifact_bytes", "artifact_bytes_max", "total_bytes", "artifact_size", "submission_bytes")
PLUS_MINUS = re.compile(r"(.+?)\s*(?:\+/?-|\u00b1)\s*(.+)")
SIZE = re.compile(r"([\d.,_]+)\s*(bytes|B|kB|KB|MB|KiB|MiB)", re.I)
UNITS = {"bytes": 0, "b": 0, "kb": 3, "mb": 6}  # powers of ten
SEED_KEY = re.compile(r"(?:seed[_ -]?)?(\d{1,19})")
SLIP_DECIMALS = 4
FEW_DECIMALS = 0.0005  # a claim rounded so that it hides more bpb is warned about: a tenth of a record's margin
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

    @property
    def averaged(self) -> bool:
        """Whether it calls its val_bpb a mean: by its key, by a deviation, or by several seeds."""
        of_mean = any(key in self.raw and "mean" in key for key in BPB) and self.raw.get("val_bpb") is None
        return of_mean or self.sd is not None or len(set(self.seed_numbers)) > 1

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
    sd = _first(raw, SD)
    return Statement(
        path=path,
        bpb=_first(raw, BPB),
        sd=_plus_minus(raw) if sd is None else sd,
        loss=_first(raw, ("val_loss", "mean_val_loss", "mean_val_loss_nats", "val_loss_mean")),
        total=_size(raw, TOTAL),
        mean_total=_size(raw, MEAN_TOTAL),
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
    stated, results = _first(raw, BPB), [each.bpb for each in _seeds(raw) if each.bpb is not None]
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
    """A number of ordinary size, as stated, of `x +- y` the x; None for anything else, also for true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    text = str(value).strip()
    if isinstance(value, str) and (both := PLUS_MINUS.fullmatch(text)):
        text = both[1]
    try:
        stated = Decimal(text.replace(",", "").replace("_", ""))
    except InvalidOperation:
        return None
    return stated if stated.is_finite() and abs(stated.adjusted()) < LARGEST else None


def agrees(stated: Decimal, computed: float, decimals: int = 17, *, units: float = 0.5) -> bool:
    """Whether two numbers are the same as far as both are known.

    stated: known to its last digit.  decimals: to which `computed` is known.  units: of the last digit that they may
    be apart, a half for what is rounded once.
    """
    exponent = stated.as_tuple().exponent
    places = max(exponent if isinstance(exponent, int) else 0, -decimals)
    return abs(float(stated) - computed) <= (units + 1e-7) * 10.0**places


def slips(stated: Decimal, computed: float, decimals: int = 17) -> bool:
    """Whether a stated number misses only by one in its last digit, as cutting off or rounding twice does.

    Of four decimals or more: one less in the last of `1.2` is another score.
    """
    exponent = stated.as_tuple().exponent
    return isinstance(exponent, int) and exponent <= -SLIP_DECIMALS and agrees(stated, computed, decimals, units=1.0)


def _first(raw: dict[str, Any], keys: tuple[str, ...]) -> Decimal | None:
    """The first that is stated; no score, size or deviation is below 0."""
    return next((found for key in keys if (found := number(raw.get(key))) is not None and found >= 0), None)


def _plus_minus(raw: dict[str, Any]) -> Decimal | None:
    """The deviation that a score states behind its `+-`."""
    found = next((match for key in BPB if (match := PLUS_MINUS.fullmatch(str(raw.get(key, "")).strip()))), None)
    return number(found[2]) if found else None


def _bytes(value: Any) -> Decimal | None:
    """A number of bytes, with the digits it was written with: `14.2 MB` is known to 100,000."""
    stated = number(value)
    if stated is not None or not isinstance(value, str) or not (found := SIZE.fullmatch(value.strip())):
        return stated
    size, unit = number(found[1]), found[2].lower()
    if size is None:
        return None
    return size * 1024 ** (1 + "km".index(unit[0])) if unit.endswith("ib") else size.scaleb(UNITS[unit])


def _size(raw: dict[str, Any], keys: tuple[str, ...]) -> Decimal | None:
    return next((found for key in keys if (found := _bytes(raw.get(key))) is not None and found >= 0), None)


def _seeds(raw: dict[str, Any]) -> list[SeedStatement]:
    """Results of seeds: an object by seed, a list of objects that name theirs, or scores in the order of `seeds`."""
    found = dict(_results(raw))
    sizes: dict[str, Any] = next((raw[key] for key in TOTAL if isinstance(raw.get(key), dict)), {})
    for key, size in sizes.items():
        if named := SEED_KEY.fullmatch(str(key)):
            one = found.setdefault(int(named[1]), {})
            found[int(named[1])] = {"bytes_total": size, **one}
    scores = {seed: next((one[key] for key in SEED_BPB if key in one), None) for seed, one in found.items()}
    places = max((_places(score) for score in scores.values()), default=0)
    return [
        SeedStatement(
            seed=seed,
            bpb=_to(places, _first(one, SEED_BPB), scores[seed]),
            loss=_first(one, ("val_loss", "loss")),
            total=_size(one, TOTAL),
        )
        for seed, one in found.items()
    ]


def _results(raw: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for key in PER_SEED:
        stated = raw.get(key)
        if isinstance(stated, dict):
            for name, one in stated.items():
                if named := SEED_KEY.fullmatch(str(name)):
                    yield int(named[1]), one if isinstance(one, dict) else {"val_bpb": one}
            return
        if isinstance(stated, list) and any(isinstance(one, dict) for one in stated):
            for one in stated:
                named = SEED_KEY.fullmatch(str(one.get("seed", ""))) if isinstance(one, dict) else None
                if named:
                    yield int(named[1]), one
            return
    seeds = _seed_numbers(raw)
    scores: list[Any] = next((raw[key] for key in LISTED if isinstance(raw.get(key), list)), [])
    if seeds and len(seeds) == len(scores):
        yield from ((seed, {"val_bpb": score}) for seed, score in zip(seeds, scores, strict=True))


def rounds(stated: Decimal, size: float) -> bool:
    """Whether a size is the other to its own digits, zeros at the end being none: 15,900,000 is 15,881,220 rounded."""
    return agrees(stated.normalize(), size)


def _places(value: Any) -> int:
    exponent = value.as_tuple().exponent if isinstance(value, Decimal) else 0
    return -exponent if isinstance(exponent, int) else 0


def _to(places: int, stated: Decimal | None, written: Any) -> Decimal | None:
    """With the decimals of its neighbours: JSON drops zeros at the end of a number, so 1.2 beside 1.2238 is 1.2000."""
    if stated is None or not isinstance(written, Decimal) or _places(stated) >= places:
        return stated
    return stated.quantize(Decimal(1).scaleb(-places))


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
