"""Scores: the figures that ways to predict are compared by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from productrec.class_order import ClassOrder
from productrec.metrics.answers import Answers, summarise
from productrec.metrics.competition import CompetitionMetric
from productrec.metrics.wilson import compute_wilson_interval


@dataclass(frozen=True)
class Scores:
    """Figures of one way to predict on ``images``.

    ``top_1_accuracy`` and ``top_3_error``: shares of them; ``metric``: key of the competition's own metric (`key` of a
    `CompetitionMetric`), ``metric_title`` as a person reads it, ``metric_value`` its value.
    """

    top_1_accuracy: float
    top_3_error: float
    metric: str
    metric_title: str
    metric_value: float
    images: int

    @property
    def top_1_interval(self) -> tuple[float, float]:
        """The 95 % interval of the top-1 accuracy."""
        return compute_wilson_interval(self.top_1_accuracy, self.images)


def compute_scores(
    probabilities: np.ndarray, class_ids: Sequence[int], labels: np.ndarray, *, metric: CompetitionMetric
) -> Scores:
    """Scores of probabilities (N, C) in the order of ``class_ids`` (C,) for true class ids ``labels`` (N,)."""
    positions = ClassOrder(list(class_ids)).positions_of(labels)
    return score_answers(summarise(probabilities, positions), metric=metric)


def score_answers(answers: Answers, *, metric: CompetitionMetric) -> Scores:
    """Scores of answers, by a competition's metric."""
    return Scores(
        CompetitionMetric("top_1_accuracy").measure(answers),
        CompetitionMetric("top_k_error", 3).measure(answers),
        metric.key,
        metric.title,
        metric.measure(answers),
        len(answers.ranks),
    )
