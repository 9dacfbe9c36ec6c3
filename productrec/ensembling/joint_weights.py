"""Weights of models in a joint space: searched on labelled queries, and kept where they gain on queries left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from productrec.metrics.answers import Answers, join
from productrec.recognition.fitting import KEPT_FROM
from productrec.recognition.objective import Objective, compute_chance
from productrec.recognition.weights import split_folds

_FOLDS = 5
_STEPS = (0.25, 0.125)  # a small grid: the errors of few queries tell no finer weights apart
_ROUNDS = 20


@dataclass(frozen=True)
class JointWeights:
    """Weights of V models.

    ``shares``: (V,) that stand, summing to 1; ``by_query``: (Q, V) what each labelled query is to be answered with for
    that answer to be honest: what stood for the others; ``tried``: (V,) what the search found on all queries;
    ``chance``: share of paired bootstraps in which searched weights were better than equal ones, each query answered by
    those that others told; None where nothing was searched; ``is_kept``: whether searched weights stand.
    """

    shares: np.ndarray
    by_query: np.ndarray
    tried: np.ndarray
    chance: float | None
    is_kept: bool


def fit_joint_weights(
    answer: Callable[[np.ndarray], Answers],
    count: int,
    queries: int,
    objective: Objective,
    *,
    groups: Sequence[int] | None = None,
    seed: int = 0,
) -> JointWeights:
    """Search weights by coordinate moves over a small grid of the simplex, from equal ones.

    The queries are parted in five, and each fifth is answered by weights that were searched on the other four. Equal
    weights stand unless that gains in at least `KEPT_FROM` of the paired bootstraps; ties count half.

    Args:
        answer: answers to all queries by some weights (V,) that sum to 1; it is asked once for each.
        count: V.
        queries: Q, at least 1.
        objective: what shall be small.
        groups: (Q,) queries of one group stay in one part; None for none.
        seed: decides how the queries are parted, and the bootstraps.
    """
    known: dict[tuple[float, ...], Answers] = {}

    def recall(shares: np.ndarray) -> Answers:
        key = tuple(np.round(shares, 9).tolist())
        if key not in known:
            known[key] = answer(shares)
        return known[key]

    equal = np.full(count, 1 / count)
    folds = split_folds(queries, min(_FOLDS, queries), seed=seed, groups=groups)
    by_query, seen = np.tile(equal, (queries, 1)), list[Answers]()
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    if len(parts) < 2:
        return JointWeights(equal, by_query, equal, None, is_kept=False)
    for own in parts:
        shares = _search(recall, np.setdiff1d(np.arange(queries), own), objective, count)
        by_query[own] = shares
        seen.append(recall(shares).take(own))
    searched = join(seen).take(np.argsort(np.concatenate(parts), kind="stable"))
    chance = compute_chance(objective, searched, recall(equal), seed=seed)
    tried = _search(recall, np.arange(queries), objective, count)
    if chance < KEPT_FROM:
        return JointWeights(equal, np.tile(equal, (queries, 1)), tried, chance, is_kept=False)
    return JointWeights(tried, by_query, tried, chance, is_kept=True)


def _search(recall: Callable[[np.ndarray], Answers], rows: np.ndarray, objective: Objective, count: int) -> np.ndarray:
    def judge(shares: np.ndarray) -> tuple[float, float]:
        answers = recall(shares).take(rows)
        return objective.judge(answers), round(float(answers.log_loss.mean()), 9)

    shares = np.full(count, 1 / count)
    best = judge(shares)
    for step in _STEPS:
        for _ in range(_ROUNDS):
            tried = []
            for giver, taker in permutations(range(count), 2):
                if (moved := min(step, float(shares[giver]))) > 1e-9:
                    other = shares.copy()
                    other[giver] -= moved
                    other[taker] += moved
                    tried.append((judge(other), other))
            found = min(tried, key=lambda one: one[0], default=(best, shares))
            if found[0] >= best:
                break
            best, shares = found
    return shares
