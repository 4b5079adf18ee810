"""The entropy models that the encoder tries: ways to give every level the frequency table that codes it.

A model that only chooses classes, of rows, row segments or columns, needs no change of the format or the decoder.
Registering one is all that it takes (tests/extensions/test_entropy_model.py does so):

    register(MyModel(name="my model", rank=100, scope="group"))
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

from codec.entropy.code_length import table_cost
from codec.entropy.histogram_clusters import cluster_contexts, segment_histograms, worthy_segments
from codec.entropy.level_tables import Fitted, Matrix, MatrixGroup, fit_contexts
from codec.entropy.row_classes import one_table, spread_contexts
from codec.entropy.row_prediction import differences, find_predictions, prediction_planes
from codec.entropy.settled_classes import settled
from codec.errors import UsageError

CLUSTERS = (4, 12, 32, 96)  # numbers of histogram clusters that are tried, until more cost more

Scope = Literal["matrix", "group", "both"]


class EntropyModel(Protocol):
    """One way to code matrices of levels.

    name: what it is registered under.  rank: its place in the order of trial; of equally cheap codings the first
    one's is kept, so the ranks are part of what the bytes depend on.  Those of the toolkit are below 100.
    scope: `group`, fitted to all matrices that share tables; `both`, also to one matrix alone, when it is asked
    whether a change of its levels pays; `matrix`, such a change itself, fitted to one matrix before it joins a group.

    What a model gives says what it costs, what the decoder needs to know first, and what is coded: the `cost`,
    `side_information` and `code` of Fitted.
    """

    @property
    def name(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def scope(self) -> Scope: ...

    def fit(self, group: MatrixGroup) -> Iterable[Fitted]:
        """Codings worth a comparison, none where the model has nothing to offer.  Decide on integers only."""


ENTROPY_MODELS: dict[str, EntropyModel] = {}
Model = TypeVar("Model", bound=EntropyModel)


def register(model: Model) -> Model:
    """Let the encoder try a model.  `del ENTROPY_MODELS[name]` takes it back.

    Raises: UsageError for a name that is taken.
    """
    if model.name in ENTROPY_MODELS:
        raise UsageError(f"an entropy model `{model.name}` is registered already")
    ENTROPY_MODELS[model.name] = model
    return model


def cheapest(group: MatrixGroup, *scopes: Scope, most_tables: int | None = None) -> Fitted | None:
    """What the registered models of these scopes make of a group, with at most so many tables; None for nothing."""
    models = sorted(ENTROPY_MODELS.values(), key=lambda model: (model.rank, model.name))
    fitted = (each for model in models if model.scope in scopes for each in model.fit(group))
    fitting = (each for each in fitted if most_tables is None or len(each.counts) <= most_tables)
    return min(fitting, key=lambda each: each.cost, default=None)


def fit_group(matrices: Sequence[Matrix], most_tables: int) -> Fitted:
    """The cheapest coding of matrices that share at most so many tables."""
    found = cheapest(MatrixGroup(matrices=matrices), "both", "group", most_tables=most_tables)
    assert found  # OneTable always fits
    return found


def changed(levels: np.ndarray) -> Matrix:
    """levels: int8 (rows, columns) -> the matrix that is coded, with its levels changed where that pays."""
    alone = MatrixGroup(matrices=[Matrix(levels=levels)])
    found = cheapest(alone, "matrix")
    if found:
        plain = cheapest(alone, "both")
        if plain and found.cost < plain.cost:
            return found.matrices[0]
    return alone.matrices[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class OneTable:
    """Every level of the group under one table."""

    name: str = "one table"
    rank: int = 0
    scope: Scope = "both"

    def fit(self, group: MatrixGroup) -> Iterator[Fitted]:
        yield fit_contexts(group, [[one_table(*each)] for each in zip(group.row_counts, group.columns, strict=True)])


@dataclass(frozen=True, kw_only=True, slots=True)
class SpreadClasses:
    """A class is one step of log2(rms), for rows, columns or both.  steps: classes per octave."""

    steps: int
    name: str
    rank: int
    scope: Scope = "both"

    def fit(self, group: MatrixGroup) -> Iterator[Fitted]:
        matrices = zip(group.matrices, group.symbols, group.row_counts, strict=True)
        yield fit_contexts(
            group, [spread_contexts(each.levels, symbols, counts, self.steps) for each, symbols, counts in matrices]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SettledClasses:
    """Classes by the spread of rows and columns, then moved to where the levels are cheapest.  steps: per octave.

    Not tried on single matrices, whose changes it would not decide otherwise.
    """

    steps: int
    name: str = "settled classes"
    rank: int = 15
    scope: Scope = "group"

    def fit(self, group: MatrixGroup) -> Iterator[Fitted]:
        matrices = zip(group.matrices, group.symbols, group.row_counts, strict=True)
        first = [spread_contexts(each.levels, symbols, counts, self.steps)[-1] for each, symbols, counts in matrices]
        yield fit_contexts(group, [[each] for each in settled(first, group.symbols, group.width)])


@dataclass(frozen=True, kw_only=True, slots=True)
class RowClusters:
    """Rows are clustered by their histograms."""

    name: str = "row clusters"
    rank: int = 20
    scope: Scope = "both"

    def fit(self, group: MatrixGroup) -> Iterator[Fitted]:
        if any(len(each) for each in group.row_counts):
            yield from _clustered(group, group.row_counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentClusters:
    """Segments of rows are clustered by their histograms.

    Not tried on single matrices, which would take three times as long.
    """

    name: str = "segment clusters"
    rank: int = 30
    scope: Scope = "group"

    def fit(self, group: MatrixGroup) -> Iterator[Fitted]:
        for segment in worthy_segments(group.symbols, group.width):
            yield from _clustered(group, segment_histograms(group.symbols, segment, group.width))


def _clustered(group: MatrixGroup, counts: Sequence[np.ndarray]) -> Iterator[Fitted]:
    least = None
    for clusters in CLUSTERS:
        fitted = fit_contexts(group, cluster_contexts(counts, group.columns, clusters))
        yield fitted
        if least is not None and fitted.cost >= least:
            return
        least = fitted.cost


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPrediction:
    """Rows that resemble an earlier row are coded as differences; the classes are the cheapest of the other models.

    Less energy is not always fewer bits: weights that were quantized before use few of their levels.
    """

    name: str = "row prediction"
    rank: int = 40
    scope: Scope = "matrix"

    def fit(self, group: MatrixGroup) -> Iterator[Fitted]:
        found = [find_predictions(each.levels) for each in group.matrices]
        if not any(found):
            return
        pairs = list(zip(group.matrices, found, strict=True))
        matrices = [
            Matrix(levels=differences(each.levels, own), predictions=own) if own else each for each, own in pairs
        ]
        fitted = cheapest(MatrixGroup(matrices=matrices), "both")
        if fitted:
            planes = [plane for own in found if own for plane in prediction_planes(own).values()]
            price = sum(table_cost(np.bincount(plane, minlength=256)) for plane in planes)
            yield dataclasses.replace(fitted, cost=fitted.cost + price)


register(OneTable())
for _steps in (1, 2, 4):
    register(SpreadClasses(steps=_steps, name=f"spread classes, {_steps} per octave", rank=10 + _steps))
register(SettledClasses(steps=2))
register(RowClusters())
register(SegmentClusters())
register(RowPrediction())
