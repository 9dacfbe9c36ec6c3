"""The neighbour graph of a gallery, and the equation of diffusion on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from productrec.retrieval.reranking.engine.mixing import weigh_by_similarity

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_SMALLEST = 1e-30  # of a squared residual that is divided by


def build_mutual_graph(rows: np.ndarray, similarities: np.ndarray, gamma: float) -> csr_matrix:
    """S = D^-1/2 A D^-1/2 of the graph whose edges are mutual neighbours, A_ij = max(s_ij, 0)^gamma.

    Args:
        rows: (M, K) other rows, nearest first.
        similarities: (M, K).
        gamma: power.

    Returns:
        (M, M) float64, symmetric, the diagonal empty; a row without mutual neighbours has no entry.
    """
    from scipy.sparse import csr_matrix, diags_array

    count, k = rows.shape
    weights = weigh_by_similarity(similarities, gamma).astype(np.float64)
    limits = np.arange(0, rows.size + 1, k) if k else np.zeros(count + 1, dtype=np.int64)
    directed = csr_matrix((weights.ravel(), rows.ravel(), limits), shape=(count, count))
    graph = directed.minimum(directed.T.tocsr())  # 0 where only one has the other among its neighbours
    degrees = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    scale = diags_array(np.where(degrees > 0, 1.0 / np.sqrt(np.maximum(degrees, 1e-300)), 0.0))
    normalised = csr_matrix(scale @ graph @ scale)
    normalised.sort_indices()
    return normalised


def solve_diffusion(
    graph: csr_matrix, sources: np.ndarray, *, alpha: float, iterations: int, tolerance: float
) -> np.ndarray:
    """f of (I - alpha S) f = y by conjugate gradients, each column for itself.

    Args:
        graph: S (M, M), symmetric, its eigenvalues in [-1, 1].
        sources: y (M, B).
        alpha: share of what arrives that is passed on, 0 to below 1.
        iterations: at most.
        tolerance: of a column's residual against its y, where it ends.

    Returns:
        (M, B) float64; zeros where y is.
    """
    solution = np.zeros_like(sources, dtype=np.float64)
    residual = np.array(sources, dtype=np.float64)
    direction = residual.copy()
    power = np.einsum("mb,mb->b", residual, residual)
    least = tolerance**2 * power
    for _ in range(iterations):
        if (power <= least).all():
            break
        image = direction - alpha * (graph @ direction)
        step = power / np.maximum(np.einsum("mb,mb->b", direction, image), _SMALLEST)
        step[power <= least] = 0.0
        solution += step * direction
        residual -= step * image
        following = np.einsum("mb,mb->b", residual, residual)
        direction = residual + following / np.maximum(power, _SMALLEST) * direction
        power = following
    return solution
