"""Two models on the same queries: how far apart they are, and whether that may be chance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from productrec.errors import DataError
from productrec.metrics.answers import Answers
from productrec.metrics.competition import CompetitionMetric
from productrec.metrics.intervals import compute_intervals

TOP_1 = CompetitionMetric("top_1_accuracy")


@dataclass(frozen=True)
class PairedFigure:
    """A figure of two models on the same queries.

    ``key`` and ``title``: of the metric; ``first`` and ``second``: its values; ``difference``: the second less the
    first; ``low`` and ``high``: ends of the 95 % interval of the difference; ``lower_is_better``: so of an error.
    """

    key: str
    title: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    lower_is_better: bool


@dataclass(frozen=True)
class Paired:
    """Two models on the same queries.

    ``figures``: the top-1 accuracy and the competition's metric; ``both``, ``only_first``, ``only_second`` and
    ``neither``: queries whose first label is right; ``chance``: how often as many of those that only one has right, or
    more, would fall to one side had each fallen to either side by the toss of a coin.
    """

    figures: tuple[PairedFigure, ...]
    both: int
    only_first: int
    only_second: int
    neither: int
    chance: float

    @property
    def count(self) -> int:
        """Queries in all."""
        return self.both + self.only_first + self.only_second + self.neither

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def compare_answers(
    first: Answers, second: Answers, *, metric: CompetitionMetric, draws: int = 1000, seed: int = 0
) -> Paired:
    """Compare two models by what they answered to the same queries.

    The interval of a difference is a paired bootstrap over queries: each draw takes the same queries for both models
    (Efron and Tibshirani, 1993, chapter 13). The counts are those of McNemar's test (Psychometrika, 1947), its chance
    the exact two-sided one of the binomial distribution.

    Args:
        first, second: to the same N queries, each in its own order of classes; N at least 1.
        metric: the competition's own.
        draws: of the bootstrap.
        seed: decides every draw.

    Raises:
        DataError: no queries, or not as many answers of one as of the other.
    """
    count = len(first.ranks)
    if not count or count != len(second.ranks):
        raise DataError(
            f"comparison: answers must be to the same queries, at least one; got {count:,} and "
            f"{len(second.ranks):,}. Take those that both answered."
        )
    metrics = {one.key: one for one in (TOP_1, metric)}

    def measure(times: NDArray[np.float64]) -> dict[str, float]:
        return {key: one.measure(second, times) - one.measure(first, times) for key, one in metrics.items()}

    intervals = compute_intervals(measure, count, draws=draws, seed=seed)
    figures = []
    for key, one in metrics.items():
        values = (one.measure(first), one.measure(second))
        figures.append(
            PairedFigure(key, one.title, *values, values[1] - values[0], *intervals[key], one.kind.lower_is_better)
        )
    one_right, other_right = find_right(first), find_right(second)
    lost, gained = int((one_right & ~other_right).sum()), int((other_right & ~one_right).sum())
    both = int((one_right & other_right).sum())
    chance = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Paired(tuple(figures), both, lost, gained, count - both - lost - gained, chance)


def find_right(answers: Answers) -> NDArray[np.bool_]:
    """(N,) whether the first label of each is right."""
    return np.asarray((answers.ranks == 0) & (answers.labels >= 0))
