"""Fusion: head and vote become one probability; k, power and weight are fitted on validation for the metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from productrec.metrics.classification import compute_label_ranks, compute_log_loss
from productrec.recognition.vote import compute_nearest, compute_softmax, compute_vote


@dataclass(frozen=True)
class Fusion:
    """How head and vote are fused: ``head_weight * head + (1 - head_weight) * vote(k, power)``."""

    k: int = 10
    power: float = 16.0
    head_weight: float = 0.5

    def describe(self) -> dict[str, float]:
        """The settings as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """What is known of some queries.

    ``logits``: (Q, C); ``classes``: (Q, K) class position of each neighbour; ``similarities``: (Q, K), descending.
    """

    logits: np.ndarray
    classes: np.ndarray
    similarities: np.ndarray

    def take(self, start: int, stop: int) -> Evidence:
        """A block of queries."""
        return Evidence(self.logits[start:stop], self.classes[start:stop], self.similarities[start:stop])


class Parts(NamedTuple):
    """Probabilities (Q, C) float32 by each way to predict: head, nearest neighbour, vote of several, and their fusion.

    The names of these fields are the parts' names on disk and in tables.
    """

    head: np.ndarray
    nearest: np.ndarray
    vote: np.ndarray
    fused: np.ndarray


PARTS = Parts._fields
# How a person reads them.
PART_TITLES = {"head": "head alone", "nearest": "nearest neighbour", "vote": "vote", "fused": "fused"}


def compute_parts(evidence: Evidence, fusion: Fusion) -> Parts:
    """Probabilities of some queries by every part of a fusion."""
    class_count = evidence.logits.shape[1]
    head = compute_softmax(evidence.logits)
    vote = compute_vote(evidence.classes, evidence.similarities, class_count, k=fusion.k, power=fusion.power)
    return Parts(
        head,
        compute_nearest(evidence.classes, evidence.similarities, class_count),
        vote,
        fusion.head_weight * head + (1 - fusion.head_weight) * vote,
    )


def fit_fusion(
    evidence: Evidence,
    labels: np.ndarray,
    *,
    measure: Callable[[np.ndarray], tuple[float, ...]],
    k_grid: Sequence[int],
    power_grid: Sequence[float],
    head_weight_grid: Sequence[float],
) -> Fusion:
    """The settings under which ``measure`` is smallest on validation queries, and no worse than any part's alone.

    The best value that head, nearest neighbour or any vote of the grids reaches is set as a mark for each error of
    ``measure``. Settings that keep all marks win; where none do, those that miss them least in sum. Between equals the
    smaller ``measure`` wins, then the smaller mean log-loss, then that of the vote alone, then the first in grid order.

    Args:
        evidence: of Q validation queries.
        labels: (Q,) class positions; -1 (an error whatever is said) where the true class is not among the classes.
        measure: from the ranks (Q,) of the true classes (0 is best; C where it cannot be found) to the errors that
            shall be small, the most important first.
        k_grid: votes to try.
        power_grid: powers to try.
        head_weight_grid: weights to try; 1 and 0 stand for one part alone.

    Returns:
        The best settings.
    """
    head = compute_softmax(evidence.logits)
    class_count = head.shape[1]
    positions = np.arange(class_count)

    def rate(probabilities: np.ndarray) -> tuple[float, ...]:
        return measure(compute_label_ranks(probabilities, positions, labels))

    alone = [rate(head), rate(compute_nearest(evidence.classes, evidence.similarities, class_count))]
    tried: list[tuple[tuple[float, ...], float, float, Fusion]] = []
    for k in dict.fromkeys(min(k, evidence.classes.shape[1]) for k in k_grid):
        for power in power_grid:
            vote = compute_vote(evidence.classes, evidence.similarities, class_count, k=k, power=power)
            alone.append(rate(vote))
            vote_loss = compute_log_loss(vote, positions, labels)
            for head_weight in head_weight_grid:
                fused = head_weight * head + (1 - head_weight) * vote
                log_loss = compute_log_loss(fused, positions, labels)
                tried.append((rate(fused), log_loss, vote_loss, Fusion(k, power, head_weight)))
    marks = np.min(alone, axis=0)

    def judge(attempt: tuple[tuple[float, ...], float, float, Fusion]) -> tuple[float, ...]:
        errors, log_loss, vote_loss, _ = attempt
        return (float(np.clip(errors - marks, 0.0, None).sum()), *errors, log_loss, vote_loss)

    return min(tried, key=judge)[3]
