"""What a fit makes small: the competition's own error, and the top-1 error beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from productrec.metrics.classification import (
    compute_global_average_precision,
    compute_label_ranks,
    compute_macro_f1,
    compute_map_at_k,
)

Metric = Literal["top_k_error", "map_at_k", "macro_f1", "global_average_precision"]


@dataclass(frozen=True)
class Answers:
    """What was answered to N queries, as far as a metric looks at it.

    ``labels``: (N,) true class positions, -1 for a class that nobody could name; ``ranks``: (N,) how many classes rank
    before the true one; ``best``: (N,) the class that ranks first; ``confidence``: (N,) its probability; ``log_loss``:
    (N,) nats.
    """

    labels: np.ndarray
    ranks: np.ndarray
    best: np.ndarray
    confidence: np.ndarray
    log_loss: np.ndarray

    def take(self, rows: np.ndarray) -> Answers:
        """Those to some queries."""
        return Answers(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def summarise(probabilities: np.ndarray, labels: np.ndarray) -> Answers:
    """Answers by probabilities (N, C) to queries of classes (N,)."""
    rows = np.arange(len(labels))
    best = probabilities.argmax(axis=1)
    given = np.where(labels >= 0, probabilities[rows, np.maximum(labels, 0)], 0.0).astype(np.float64)
    return Answers(
        labels,
        compute_label_ranks(probabilities, np.arange(probabilities.shape[1]), labels),
        best,
        probabilities[rows, best].astype(np.float64),
        -np.log(np.clip(given, 2.0**-25, 1.0)),
    )


def join(parts: list[Answers]) -> Answers:
    """Answers to some queries after those to others."""
    return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in Answers.__dataclass_fields__))


@dataclass(frozen=True)
class Objective:
    """A competition's metric as an error, from 0 to 1: its share of wrong answers, or 1 less its value."""

    metric: Metric = "top_k_error"
    k: int = 1

    def measure(self, answers: Answers, weights: np.ndarray | None = None) -> float:
        """The error. ``weights``: (N,) how often each query counts; None for once each."""
        if self.metric == "macro_f1":
            return 1 - compute_macro_f1(answers.labels, answers.best, weights)
        if self.metric == "global_average_precision":
            is_right, answerable = answers.ranks == 0, answers.labels >= 0
            return 1 - compute_global_average_precision(is_right, answers.confidence, answerable, weights)
        if self.metric == "map_at_k":
            return 1 - compute_map_at_k(answers.ranks, self.k, weights)
        return float(np.average(answers.ranks >= self.k, weights=weights))

    def judge(self, answers: Answers, weights: np.ndarray | None = None) -> float:
        """The error and the top-1 error, summed: where the first is nearly 0 the second tells more."""
        return self.measure(answers, weights) + float(np.average(answers.ranks > 0, weights=weights))


def compute_chance(
    objective: Objective, answers: Answers, before: Answers, *, draws: int = 1000, seed: int = 0
) -> float:
    """How surely answers are better than those before: the share of paired bootstraps in which they are.

    Queries are drawn again with replacement, the same for both; a tie counts half.

    Args:
        objective: whose `judge` decides.
        answers: to N queries.
        before: to the same.
        draws: how often they are drawn.
        seed: decides every draw.
    """
    generator = np.random.default_rng(seed)
    count = len(answers.ranks)
    if objective.metric in ("top_k_error", "map_at_k"):  # sums over queries
        differences = _judge_each(objective, before) - _judge_each(objective, answers)
        changed = np.flatnonzero(differences)
        if not len(changed):
            return 0.5
        times = generator.multinomial(count, np.full(count, 1 / count), size=draws)[:, changed]
        gains = times @ differences[changed]
    else:
        gains = np.empty(draws)
        for draw in range(draws):
            times = np.bincount(generator.integers(0, count, count), minlength=count).astype(np.float64)
            gains[draw] = objective.judge(before, times) - objective.judge(answers, times)
    gains = np.where(np.abs(gains) < 1e-9, 0.0, gains)
    return float(((gains > 0) + 0.5 * (gains == 0)).mean())


def _judge_each(objective: Objective, answers: Answers) -> np.ndarray:
    errors = answers.ranks >= objective.k
    if objective.metric == "map_at_k":
        return 1.0 - np.where(errors, 0.0, 1 / (1 + answers.ranks)) + (answers.ranks > 0)
    return errors.astype(np.float64) + (answers.ranks > 0)
