"""What a fit makes small: the competition's own error, and the top-1 error beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from productrec.metrics.answers import Answers
from productrec.metrics.competition import CompetitionMetric

_DIGITS = 12  # beyond them sums of shares differ by rounding alone


@dataclass(frozen=True)
class Objective:
    """A competition's metric as an error, from 0 to 1: its share of wrong answers, or 1 less its value.

    ``metric``: of `metrics.competition.METRICS`; ``k``: of it.
    """

    metric: str = "top_k_error"
    k: int = 1

    @property
    def scoring(self) -> CompetitionMetric:
        """The metric as a competition scores it."""
        return CompetitionMetric(self.metric, self.k)

    def measure(self, answers: Answers, weights: np.ndarray | None = None) -> float:
        """The error. ``weights``: (N,) how often each query counts; None for once each."""
        return 1 - self.scoring.orient(self.scoring.measure(answers, weights))

    def judge(self, answers: Answers, weights: np.ndarray | None = None) -> float:
        """The error and the top-1 error, summed: where the first is nearly 0 the second tells more.

        It is rounded, so that equal counts of errors are equal however they came about, and the log-loss decides.
        """
        return round(self.measure(answers, weights) + float(np.average(answers.ranks > 0, weights=weights)), _DIGITS)


def compute_chance(
    objective: Objective,
    answers: Answers,
    before: Answers,
    *,
    weights: np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> float:
    """How surely answers are better than those before: the share of paired bootstraps in which they are.

    Queries are drawn again with replacement, the same for both; a tie counts half.

    Args:
        objective: whose `judge` decides.
        answers: to N queries.
        before: to the same.
        weights: (N,) how often each query counts; None for once each.
        draws: how often they are drawn.
        seed: decides every draw.
    """
    generator = np.random.default_rng(seed)
    count = len(answers.ranks)
    if (errors := objective.scoring.measure_errors(answers)) is not None:  # a sum over queries
        errors_before = objective.scoring.measure_errors(before)
        assert errors_before is not None
        differences = errors_before + (before.ranks > 0) - errors - (answers.ranks > 0)
        if weights is not None:
            differences = differences * weights
        changed = np.flatnonzero(differences)
        if not len(changed):
            return 0.5
        times = generator.multinomial(count, np.full(count, 1 / count), size=draws)[:, changed]
        gains = times @ differences[changed]
    else:
        gains = np.empty(draws)
        for draw in range(draws):
            times = np.bincount(generator.integers(0, count, count), minlength=count).astype(np.float64)
            if weights is not None:
                times *= weights
                if not times.any():  # none of these counts: a tie
                    gains[draw] = 0.0
                    continue
            gains[draw] = objective.judge(before, times) - objective.judge(answers, times)
    gains = np.where(np.abs(gains) < 1e-9, 0.0, gains)
    return float(((gains > 0) + 0.5 * (gains == 0)).mean())
