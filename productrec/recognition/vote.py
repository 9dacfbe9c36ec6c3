"""The vote: each nearest neighbour speaks for its class, the louder the more similar, or the nearer, it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Weighing = Literal["power", "softmax", "rank"]
Pooling = Literal["sum", "mean", "max"]


@dataclass(frozen=True)
class Vote:
    """Who votes, and how loud.

    ``k``: neighbours that vote; ``weighing``: by the similarity s of a neighbour and s1 of the nearest one, ``power``
    (s / s1) ** strength, ``softmax`` exp(strength * (s - s1)), or by its place, ``rank`` (1 / (1 + place)) **
    strength; ``pooling``: what a class gets of its neighbours' weights, their sum, mean or maximum. A strength of 0
    counts heads, a large one listens to the nearest.
    """

    k: int = 10
    weighing: Weighing = "power"
    strength: float = 16.0
    pooling: Pooling = "sum"


def compute_vote(classes: np.ndarray, similarities: np.ndarray, class_count: int, vote: Vote) -> np.ndarray:
    """Share of each class in a vote.

    Args:
        classes: (Q, K) class position of each neighbour, nearest first; -1 where its class is not among them.
        similarities: (Q, K), descending; a neighbour of similarity 0 or below has no vote.
        class_count: C.
        vote: at most K of its neighbours are there.

    Returns:
        (Q, C) float32, each row sums to 1; uniform where nobody votes.
    """
    classes, similarities = classes[:, : vote.k], similarities[:, : vote.k]
    weights = _weigh(similarities, vote)
    votes = (similarities > 0) & (classes >= 0)
    weights[~votes] = 0.0
    queries = len(classes)
    cells = (np.arange(queries)[:, None] * class_count + np.maximum(classes, 0)).ravel()
    if vote.pooling == "max":
        shares: np.ndarray = np.zeros(queries * class_count)
        np.maximum.at(shares, cells, weights.ravel())
    else:
        shares = np.bincount(cells, weights.ravel(), minlength=queries * class_count)
        if vote.pooling == "mean":
            shares = shares / np.maximum(np.bincount(cells, votes.ravel(), minlength=queries * class_count), 1)
    return normalise_rows(shares.reshape(queries, class_count))


def _weigh(similarities: np.ndarray, vote: Vote) -> np.ndarray:
    """Weights (Q, k) float64 of the neighbours, relative to the nearest one's, so that none underflows."""
    if vote.weighing == "rank":
        places = np.arange(similarities.shape[1], dtype=np.float64)
        return np.broadcast_to((1 / (1 + places)) ** vote.strength, similarities.shape).copy()
    nearest = similarities[:, :1].astype(np.float64)
    if vote.weighing == "softmax":
        return np.exp(vote.strength * (similarities - nearest))
    powers: np.ndarray = (np.clip(similarities, 0.0, None) / np.maximum(nearest, 1e-12)) ** vote.strength
    return powers


def soften(shares: np.ndarray, least: float = 1e-6) -> np.ndarray:
    """Shares (Q, C) with about ``least`` for a class that nobody voted for: a vote of few must not rule it out."""
    softened: np.ndarray = (shares + np.float32(least)) / np.float32(1 + shares.shape[1] * least)
    return softened


def compute_nearest(classes: np.ndarray, similarities: np.ndarray, class_count: int) -> np.ndarray:
    """Share of each class by its single nearest neighbour: classes are ranked by their largest similarity.

    Arguments as for `compute_vote`; a class without a neighbour among the K gets nothing.

    Returns:
        (Q, C) float32, each row sums to 1.
    """
    best = np.zeros((len(classes), class_count))
    queries = np.broadcast_to(np.arange(len(classes))[:, None], classes.shape)
    known = classes >= 0
    np.maximum.at(best, (queries[known], classes[known]), np.clip(similarities[known], 0.0, None))
    return normalise_rows(best)


def compute_softmax(logits: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Probabilities of logits (N, C) times ``scale``, in float32."""
    shifted = logits.astype(np.float32)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted *= np.float32(scale)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def normalise_rows(values: np.ndarray) -> np.ndarray:
    """Rows brought to sum 1, in float32; a row of zeros becomes uniform."""
    sums = values.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(sums > 0, values / sums, 1.0 / values.shape[1])
    return np.asarray(shares, dtype=np.float32)
