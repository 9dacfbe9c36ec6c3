"""Scores: the figures that ways to predict are compared by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from productrec.metrics.classification import compute_label_ranks
from productrec.metrics.wilson import compute_wilson_interval


@dataclass(frozen=True)
class Scores:
    """Figures of one way to predict, shares of ``images``; ``metric_error`` is the error at the competition's own k."""

    top_1_accuracy: float
    top_3_error: float
    metric_error: float
    images: int

    @property
    def top_1_interval(self) -> tuple[float, float]:
        """The 95 % interval of the top-1 accuracy."""
        return compute_wilson_interval(self.top_1_accuracy, self.images)


def compute_scores(probabilities: np.ndarray, class_ids: Sequence[int], labels: np.ndarray, *, metric_k: int) -> Scores:
    """Scores of probabilities (N, C) in the order of ``class_ids`` (C,) for true class ids ``labels`` (N,)."""
    return score_ranks(compute_label_ranks(probabilities, np.asarray(class_ids), labels), metric_k=metric_k)


def score_ranks(ranks: np.ndarray, *, metric_k: int) -> Scores:
    """Scores from how many classes rank before each image's own (N,)."""
    return Scores(float((ranks == 0).mean()), float((ranks >= 3).mean()), float((ranks >= metric_k).mean()), len(ranks))
