"""Offline mining: over a whole embedding set, which classes lie nearest to each other, which images are confused."""

from __future__ import annotations

import numpy as np

from productrec.retrieval.engine import build_engine, move_to_gpu

_QUERIES_AT_A_TIME = 8192


def find_near_classes(embeddings: np.ndarray, labels: np.ndarray, class_count: int, count: int) -> np.ndarray:
    """The classes whose mean direction is most similar to each class's, nearest first.

    Args:
        embeddings: (N, D) float32, unit rows.
        labels: (N,) class positions; a class without a row is as near as any other.
        class_count: C.
        count: how many for each class.

    Returns:
        (C, count or C - 1 if that is less) int64 class positions.
    """
    sums = np.zeros((class_count, embeddings.shape[1]), dtype=np.float64)
    np.add.at(sums, labels, embeddings)
    means = (sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(min=1e-12)).astype(np.float32)
    rows, _ = find_hard_negatives(means, np.arange(len(means)), min(count, len(means) - 1))
    return rows


def find_hard_negatives(embeddings: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The most similar rows of other classes, most similar first.

    Args:
        embeddings: (N, D) float32, unit rows.
        labels: (N,) classes; only equality matters.
        count: how many for each row, K.

    Returns:
        Rows (N, K) int64, -1 where there are fewer, and their similarities (N, K) float32, -inf there.
    """
    embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
    negatives = np.full((len(labels), count), -1, dtype=np.int64)
    similarities = np.full((len(labels), count), -np.inf, dtype=np.float32)
    engine = move_to_gpu(build_engine(embeddings))
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    # With as many more as a row's class has, a row always finds enough; most classes are far smaller than the largest.
    depths = np.minimum(count + sizes[classes], len(labels))
    steps = 1 << np.ceil(np.log2(depths)).astype(np.int64)
    for step in np.unique(steps) if count else []:
        members = np.flatnonzero(steps == step)
        for start in range(0, len(members), _QUERIES_AT_A_TIME):
            queries = members[start : start + _QUERIES_AT_A_TIME]
            near, rows = engine.search(embeddings[queries], int(depths[queries].max()))
            is_other = classes[rows] != classes[queries][:, None]
            order = np.argsort(~is_other, axis=1, kind="stable")[:, :count]
            kept = np.take_along_axis(is_other, order, axis=1)
            width = order.shape[1]
            negatives[queries, :width] = np.where(kept, np.take_along_axis(rows, order, axis=1), -1)
            similarities[queries, :width] = np.where(kept, np.take_along_axis(near, order, axis=1), -np.inf)
    return negatives, similarities
