"""Greedy selection of models: the one that helps most is added, again and again, and may be added again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from productrec.recognition.objective import Objective
from productrec.recognition.rivals import Rivals, find_rivals

ROUNDS = 50
_DIGITS = 6  # of a log-loss: beyond them rounding alone tells sums apart
_PATIENCE = 10  # rounds that may bring nothing


def select_greedily(
    parts: Sequence[np.ndarray], labels: np.ndarray, objective: Objective, *, rounds: int = ROUNDS
) -> list[float]:
    """Weights (V,) of a mean, summing to 1: how often each model was added.

    Caruana, Niculescu-Mizil, Crew and Ksikes, *Ensemble Selection from Libraries of Models*, ICML 2004, with
    replacement: it begins with the best model, and the sum of fewest errors on the way stands. Between equal errors the
    smaller log-loss wins, then the model that stands first.

    Args:
        parts: V arrays (N, C), memory maps welcome.
        labels: (N,) class positions, -1 for none of them.
        objective: what shall be small.
        rounds: models added at most, each time one.
    """
    return _select(find_rivals(parts, labels), objective, rounds)


def _select(rivals: Rivals, objective: Objective, rounds: int) -> list[float]:
    count = len(rivals.own)
    chosen = np.zeros(count)
    own, values = np.zeros_like(rivals.own[0]), np.zeros_like(rivals.values[0])
    best, stands, idle = (np.inf, np.inf), chosen, 0
    for added in range(1, rounds + 1):
        share = np.float32(1 / added)
        tried = []
        for one in range(count):
            answers = rivals.tell((own + rivals.own[one]) * share, (values + rivals.values[one]) * share)
            tried.append((objective.judge(answers), round(float(answers.log_loss.mean()), _DIGITS), one))
        error, loss, one = min(tried)
        chosen = chosen.copy()
        chosen[one] += 1
        own, values = own + rivals.own[one], values + rivals.values[one]
        if (error, loss) < best:
            best, stands, idle = (error, loss), chosen, 0
        elif (idle := idle + 1) >= _PATIENCE:
            break
    return [float(weight) for weight in stands / stands.sum()]
