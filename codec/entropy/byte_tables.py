"""Which frequency table codes which byte plane: the bytes of scales and of plain arrays.

All planes of one kind and position share a table, except where others pay: scales of one tensor, or of one role in
all layers, are more alike than those of the whole model.  That is worth 0.03 to 0.17 % of real artifacts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codec.entropy.code_length import COST_UNIT, symbol_costs, table_cost
from codec.entropy.rans import table_logs

FORM_COST = 16 * 8 * COST_UNIT  # a form that no other tensor has: about 30 characters of header text


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteTables:
    """counts: int64 (256,) of each table.  planes: by tensor, for each of its planes 0 (uniform) or 1 + a table."""

    counts: list[np.ndarray]
    planes: dict[str, list[int]]


def byte_tables(tensors: Mapping[str, Sequence[tuple[str, np.ndarray]]], most: int) -> ByteTables:
    """tensors: of each its planes, kind and uint8 (count,).  most: tables that only some planes of a kind share."""
    histograms: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for name, planes in tensors.items():
        for position, (kind, plane) in enumerate(planes):
            histograms.setdefault((kind, position), {})[name] = np.bincount(plane, minlength=256)
    found = ByteTables(counts=[], planes={name: [0] * len(planes) for name, planes in tensors.items()})
    for (_, position), counts in sorted(histograms.items()):
        total = np.sum([*counts.values()], 0)
        if table_cost(total) < 8 * COST_UNIT * total.sum():
            _add(found, total, counts, position)
    for (_, position), counts in sorted(histograms.items()):
        common = found.planes[next(iter(counts))][position]
        costs = symbol_costs(table_logs(found.counts[common - 1])) if common else np.full(256, 8 * COST_UNIT)
        for members in _clusters(counts, costs, most):
            most -= 1
            own = np.sum([counts[name] for name in members], 0)
            _add(found, own, members, position)
            if common:
                found.counts[common - 1] -= own
    return found


def _add(found: ByteTables, counts: np.ndarray, members: Mapping[str, np.ndarray] | list[str], position: int) -> None:
    found.counts.append(counts)
    for name in members:
        found.planes[name][position] = len(found.counts)


def _clusters(counts: Mapping[str, np.ndarray], costs: np.ndarray, most: int) -> list[list[str]]:
    """Names that get a table to themselves.  costs: of each symbol under the common table.

    Greedy: who gains most from a table of its own founds one, or joins one that suits it better.
    """
    common = {name: int(each @ costs) for name, each in counts.items()}
    alone = {name: table_cost(each) + FORM_COST for name, each in counts.items()}
    clusters: list[list[str]] = []
    totals, prices = np.zeros((0, 256), np.int64), np.zeros((0, 256), np.int64)
    gains = {name: common[name] - alone[name] for name in counts if alone[name] < common[name]}
    for name in sorted(gains, key=lambda each: (-gains[each], each)):
        joined = prices @ counts[name] + FORM_COST
        place = int(joined.argmin()) if clusters else 0
        if len(clusters) < most and (not clusters or alone[name] < joined[place]):
            place = len(clusters)
            clusters.append([])
            totals, prices = (np.vstack([each, np.zeros((1, 256), np.int64)]) for each in (totals, prices))
        elif not clusters or joined[place] >= common[name]:
            continue
        clusters[place].append(name)
        totals[place] += counts[name]
        # One part in 4,096 of a symbol keeps those that the table has not met finite.
        prices[place] = symbol_costs(table_logs(4096 * totals[place] + 1))
    return clusters
