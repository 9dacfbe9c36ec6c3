"""Nearest rows within a row's own class, found exactly, a class at a time."""

from __future__ import annotations

import numpy as np

_QUERIES_AT_A_TIME = 1024


def search_own_class(embeddings: np.ndarray, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` most similar other rows of each row's class, most similar first.

    Args:
        embeddings: (N, D) float32, unit rows.
        labels: (N,) classes; a row with a negative one has none of its class.
        k: how many for each row.

    Returns:
        Rows (N, k) int64, 0 where there are fewer, and their similarities (N, k) float32, -inf there.
    """
    rows = np.zeros((len(labels), k), dtype=np.int64)
    similarities = np.full((len(labels), k), -np.inf, dtype=np.float32)
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        count = min(k, len(members) - 1)
        if count < 1:
            continue
        for start in range(0, len(members), _QUERIES_AT_A_TIME):
            asking = members[start : start + _QUERIES_AT_A_TIME]
            near = embeddings[asking] @ embeddings[members].T
            own = np.arange(len(asking))
            near[own, start + own] = -np.inf
            best = np.argsort(-near, axis=1, kind="stable")[:, :count]
            rows[asking, :count] = members[best]
            similarities[asking, :count] = near[own[:, None], best]
    return rows, similarities
