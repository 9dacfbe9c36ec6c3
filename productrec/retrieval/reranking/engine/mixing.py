"""Mixing: an embedding becomes the direction of itself and weighed gallery rows."""

from __future__ import annotations

import numpy as np

_ROWS_AT_A_TIME = 65536
_SHORTEST = 1e-6  # a sum that is shorter has no direction


def mix_rows(own: np.ndarray, gallery: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The normalised sum of each embedding and its neighbours: ``own + sum_k weights_k * gallery[rows_k]``.

    Args:
        own: (N, D) float32, unit rows; each has weight 1.
        gallery: (M, D) float32, unit rows.
        rows: (N, K) gallery rows; one with weight 0 may be any number.
        weights: (N, K), at least 0.

    Returns:
        (N, D) float32, unit rows. Where the sum vanishes, or nothing has a weight, the embedding as it was.
    """
    from scipy.sparse import csr_matrix

    mixed = np.array(own, dtype=np.float32, order="C")
    weights = np.asarray(weights, dtype=np.float32)
    for start in range(0, len(own), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        kept = weights[part] > 0
        limits = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        mixing = csr_matrix((weights[part][kept], rows[part][kept], limits), shape=(len(kept), len(gallery)))
        sums = mixed[part] + mixing @ gallery
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        changed = kept.any(axis=1) & (lengths[:, 0] > _SHORTEST)
        mixed[part][changed] = sums[changed] / lengths[changed]
    return mixed


def weigh_by_similarity(similarities: np.ndarray, alpha: float) -> np.ndarray:
    """``max(s, 0) ** alpha``, and 0 where s is not above 0 whatever alpha is."""
    positive = np.clip(similarities, 0.0, None).astype(np.float32)
    return np.where(positive > 0, positive ** np.float32(alpha), np.float32(0.0))
