"""Weights of several opinions in one: fitted, and fitted in nested validation so that the reported gain is honest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy.optimize import minimize

from productrec.recognition.objective import Objective
from productrec.recognition.rivals import find_rivals
from productrec.recognition.vote import normalise_rows

Rule = Literal["linear", "product"]
_TINY = 1e-30  # below it a probability counts as this, since the logarithm of none is infinite
_ENOUGH = {"ftol": 1e-7, "gtol": 1e-5}  # beyond it float32 tells nothing more
_PRIOR_QUERIES = 3.0  # that stand for equal weights where few queries tell otherwise
_STEPS = (0.5, 0.25, 0.1, 0.05)
_ROUNDS = 20


def combine(parts: Sequence[np.ndarray], weights: Sequence[float], rule: Rule) -> np.ndarray:
    """Opinions (V arrays of (N, C), rows sum to 1) as one.

    ``linear``: their weighted mean; ``product``: proportional to the product of each to the power of its weight, the
    logarithmic pool, where one that is sure of a class's absence can rule it out.

    Returns:
        (N, C) float32, rows sum to 1.
    """
    used = [(part, np.float32(weight)) for part, weight in zip(parts, weights, strict=True) if weight]
    if rule == "product":
        logs = sum(weight * np.log(np.maximum(part, np.float32(_TINY))) for part, weight in used)
        logs = np.asarray(logs, dtype=np.float32)
        return normalise_rows(np.exp(logs - logs.max(axis=1, keepdims=True)))
    total = np.float32(sum(weights))
    return np.asarray(sum(weight * part for part, weight in used) / total, dtype=np.float32)


Fit = Callable[[Sequence[np.ndarray], np.ndarray, Objective], tuple[list[float], Rule]]


def fit_mixture(parts: Sequence[np.ndarray], labels: np.ndarray, objective: Objective) -> tuple[list[float], Rule]:
    """Weights of a mean by likelihood (EM for a mixture whose components are given); ``objective`` is not asked."""
    given = np.stack([_give(part, labels) for part in parts], axis=1)  # (N, V)
    weights = np.full(len(parts), 1 / len(parts))
    for _ in range(200):
        shares = given * weights
        before, weights = weights, (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(weights - before).max() < 1e-5:
            break
    return [float(weight) for weight in weights], "linear"


def fit_mean(parts: Sequence[np.ndarray], labels: np.ndarray, objective: Objective) -> tuple[list[float], Rule]:
    """Weights of a mean by the objective: weight is moved from one part to another while that helps.

    It starts from each part alone and from equal weights; between equal errors the smaller log-loss wins.
    """
    count = len(parts)
    rivals = find_rivals(parts, labels)

    def judge(weights: np.ndarray) -> tuple[float, float]:
        answers = rivals.answer(weights)
        return objective.judge(answers), float(answers.log_loss.mean())

    starts = [*np.eye(count), np.full(count, 1 / count)]
    best, weights = min(((judge(start), start) for start in starts), key=lambda tried: tried[0])
    for step in _STEPS:
        for _ in range(_ROUNDS):
            tried = []
            for giver in range(count):
                for taker in range(count):
                    moved = min(step, float(weights[giver]))
                    if giver == taker or moved <= 0:
                        continue
                    other = weights.copy()
                    other[giver] -= moved
                    other[taker] += moved
                    tried.append((judge(other), other))
            if not tried or (found := min(tried, key=lambda one: one[0]))[0] >= best:
                break
            best, weights = found
    return [round(float(weight), 4) for weight in weights], "linear"


def fit_product(parts: Sequence[np.ndarray], labels: np.ndarray, objective: Objective) -> tuple[list[float], Rule]:
    """Exponents of a product by likelihood: a logistic regression on log-probabilities with one weight a part.

    It is drawn towards equal weights as by a few queries, so that a handful of queries cannot run away with it.
    ``objective`` is not asked.
    """
    known = labels >= 0
    equal = np.full(len(parts), 1 / len(parts))
    if not known.any():
        return equal.tolist(), "product"
    pull = _PRIOR_QUERIES / known.sum()
    logs = np.stack([np.log(np.maximum(part[known], np.float32(_TINY))) for part in parts])  # (V, N, C)
    logs = logs.astype(np.float32, copy=False)  # the whole of it is large, and sums over queries are made in float64
    own = np.take_along_axis(logs, labels[known][None, :, None], axis=2)[:, :, 0]  # (V, N)

    def lose(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = np.tensordot(weights.astype(np.float32), logs, axes=1)
        top = scores.max(axis=1, keepdims=True)
        shares = np.exp(scores - top)
        totals = shares.sum(axis=1, keepdims=True)
        loss = (np.log(totals) + top)[:, 0].astype(np.float64) - weights @ own
        expected = np.einsum("vnc,nc->vn", logs, shares / totals).astype(np.float64)
        away = weights - equal
        slope = (expected - own).mean(axis=1) + 2 * pull * away
        return float(loss.mean() + pull * away @ away), slope

    found = minimize(lose, equal, jac=True, method="L-BFGS-B", bounds=[(0.0, 20.0)] * len(parts), options=_ENOUGH)
    weights = [round(float(weight), 4) for weight in found.x]
    return (weights if any(weights) else equal.tolist()), "product"


FITS: dict[str, Fit] = {
    "mean by metric": fit_mean,
    "mean by likelihood": fit_mixture,
    "product by likelihood": fit_product,
}


def _give(part: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What a part gives to each query's class, (N,) float64 above 0; 1 where nobody could name it."""
    given = part[np.arange(len(labels)), np.maximum(labels, 0)].astype(np.float64)
    return np.where(labels >= 0, np.maximum(given, _TINY), 1.0)


def split_folds(count: int, folds: int, *, seed: int = 0, groups: Sequence[int] | None = None) -> np.ndarray:
    """A fold from 0 for each of ``count`` queries, evenly and by chance; those of one group stay together."""
    generator = np.random.default_rng(seed)
    numbers = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(numbers.max()) + 1 if count else 0
    places: np.ndarray = generator.permutation(np.arange(units) % folds)
    return places[numbers]
