"""Metrics that competitions score by, one declaration each: what a contract names is fitted, chosen and shown by it.

Equal probabilities rank by class position, the lower first, in every one of them. A query whose class nobody could name
(label -1) is an error of the first three, one more class of F1 0 for macro F1, and for GAP an answer that is wrong
and no answer that was to be found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from productrec.metrics.answers import Answers
from productrec.metrics.classification import compute_global_average_precision, compute_macro_f1


@dataclass(frozen=True)
class MetricKind:
    """A metric in [0, 1].

    ``title`` and ``meaning``: for a person, with ``{k}`` where it has one; ``lower_is_better``: so of an error;
    ``has_k``: whether it looks at the first k guesses; ``source``: where it is defined; ``score_each``: (N,) what each
    answer is worth where the metric is the mean of that, else None; ``measure``: of answers and (N,) how often each
    counts, None for once each.
    """

    title: str
    meaning: str
    source: str
    lower_is_better: bool = False
    has_k: bool = False
    score_each: Callable[[Answers, int], np.ndarray] | None = None
    measure: Callable[[Answers, np.ndarray | None], float] | None = None


def _find_within(answers: Answers, k: int) -> np.ndarray:
    return (answers.ranks < k) & (answers.labels >= 0)


def _is_first(answers: Answers, k: int) -> np.ndarray:
    return _find_within(answers, 1).astype(np.float64)


def _is_outside(answers: Answers, k: int) -> np.ndarray:
    return 1.0 - _find_within(answers, k)


def _score_place(answers: Answers, k: int) -> np.ndarray:
    return np.where(_find_within(answers, k), 1 / (1 + answers.ranks.astype(np.float64)), 0.0)


def _measure_macro_f1(answers: Answers, weights: np.ndarray | None) -> float:
    return compute_macro_f1(answers.labels, answers.best, weights)


def _measure_gap(answers: Answers, weights: np.ndarray | None) -> float:
    is_right = _find_within(answers, 1)
    return compute_global_average_precision(is_right, answers.confidence, answers.labels >= 0, weights)


METRICS: dict[str, MetricKind] = {
    "top_1_accuracy": MetricKind(
        "top-1 accuracy",
        "accuracy: the share of images whose first label is right",
        "Russakovsky et al., IJCV 2015, section 4.1, as 1 less the top-1 error",
        score_each=_is_first,
    ),
    "top_k_error": MetricKind(
        "top-{k} error",
        "top-{k} error: the share of images without a right label among the first {k}",
        "Russakovsky et al., IJCV 2015, section 4.1",
        lower_is_better=True,
        has_k=True,
        score_each=_is_outside,
    ),
    "map_at_k": MetricKind(
        "MAP@{k}",
        "MAP@{k}: an image counts 1 / n where its n-th label is the right one, 0 beyond {k} labels",
        "Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, section 8.4, with one relevant "
        "label and the list cut at k",
        has_k=True,
        score_each=_score_place,
    ),
    "macro_f1": MetricKind(
        "macro F1",
        "macro F1: the mean over classes of the harmonic mean of precision and recall of the first label",
        "Opitz and Burst, Macro F1 and Macro F1, 2019 (arXiv 1911.03347), their averaged F1",
        measure=_measure_macro_f1,
    ),
    "global_average_precision": MetricKind(
        "GAP",
        "GAP (micro average precision): all first labels in one list, the surest first; the sum of the precision at "
        "each right one by the number of images that have a right one",
        "Weyand et al., Google Landmarks Dataset v2, CVPR 2020, section 3.4; Perronnin et al., CVPR 2009",
        measure=_measure_gap,
    ),
}


@dataclass(frozen=True)
class CompetitionMetric:
    """A metric of `METRICS`, with its k where it has one."""

    name: str = "top_1_accuracy"
    k: int = 1

    @property
    def kind(self) -> MetricKind:
        """Its declaration."""
        return METRICS[self.name]

    @property
    def title(self) -> str:
        """As a table heads it, such as ``MAP@5``."""
        return self.kind.title.format(k=self.k)

    @property
    def key(self) -> str:
        """As a file names it, such as ``map_at_5``."""
        return self.name.replace("_k", f"_{self.k}") if self.kind.has_k else self.name

    def measure(self, answers: Answers, weights: np.ndarray | None = None) -> float:
        """The value. ``weights``: (N,) how often each query counts; None for once each."""
        if self.kind.score_each is not None:
            return float(np.average(self.kind.score_each(answers, self.k), weights=weights))
        assert self.kind.measure is not None
        return self.kind.measure(answers, weights)

    def orient(self, value: float) -> float:
        """A value in [0, 1], turned so that more is better and 1 is best: 1 less an error."""
        return 1 - value if self.kind.lower_is_better else value

    def measure_errors(self, answers: Answers) -> np.ndarray | None:
        """(N,) error of each answer, whose mean is 1 less the oriented value; None where it is no mean of such."""
        if self.kind.score_each is None:
            return None
        scored = self.kind.score_each(answers, self.k)
        return scored if self.kind.lower_is_better else 1 - scored
