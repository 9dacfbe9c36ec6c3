"""k-reciprocal re-ranking as published: matrices of all rows by all rows, a row at a time; to be compared with."""

from __future__ import annotations

import numpy as np


def rerank_densely(
    distances: np.ndarray, order: np.ndarray, queries: int, *, k1: int, k2: int, weight: float
) -> np.ndarray:
    """d* of queries and gallery rows (Zhong et al., CVPR 2017).

    Args:
        distances: (N, N) float32, squared, queries first.
        order: (N, at least max(k1 + 1, k2)) each row's nearest, the row itself first.
        queries: Q, the first rows.
        k1: neighbours of a reciprocal set.
        k2: rows of the local query expansion.
        weight: lambda.

    Returns:
        (Q, N - Q) float32.
    """
    count, half = len(distances), round(k1 / 2)

    def find_mutual(row: int, k: int) -> np.ndarray:
        forward = order[row, : k + 1]
        return np.asarray(forward[(order[forward, : k + 1] == row).any(axis=1)])

    vectors = np.zeros((count, count), dtype=np.float32)
    for row in range(count):
        mutual = find_mutual(row, k1)
        sets = [mutual]
        for candidate in mutual:
            smaller = find_mutual(candidate, half)
            if 3 * len(np.intersect1d(smaller, mutual)) >= 2 * len(smaller):
                sets.append(smaller)
        expanded = np.unique(np.concatenate(sets))
        vectors[row, expanded] = np.exp(-distances[row, expanded])
    if k2 > 1:
        averaged = np.empty_like(vectors)
        for row in range(count):
            averaged[row] = vectors[order[row, :k2]].mean(axis=0)
        vectors = averaged
    sums = vectors.sum(axis=1)
    holders = [np.flatnonzero(vectors[:, column]) for column in range(count)]
    answers = np.empty((queries, count), dtype=np.float32)
    for query in range(queries):
        minima = np.zeros(count, dtype=np.float32)
        for column in np.flatnonzero(vectors[query]):
            rows = holders[column]
            minima[rows] += np.minimum(vectors[query, column], vectors[rows, column])
        jaccard = minima / (sums[query] + sums - minima)
        answers[query] = (1 - weight) * (1 - jaccard) + weight * distances[query]
    return answers[:, queries:]
