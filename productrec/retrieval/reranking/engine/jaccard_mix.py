"""The best gallery rows by a mix of Jaccard similarity and inner product, of a block of queries."""

from __future__ import annotations

import numpy as np

from productrec.retrieval.reranking.engine.candidates import (
    compute_pair_similarities,
    take_best,
    take_best_candidates,
)
from productrec.retrieval.reranking.first_search import NeighbourLists

# Above so many gallery rows, inner products with all of them cost more than with those that share anything.
MOST_COMPARED = 100_000


def mix_similarities(jaccard: np.ndarray, similarities: np.ndarray, weight: float) -> np.ndarray:
    """``1 - d*``: ``(1 - weight) * jaccard + weight * (1 - d)`` with the squared distance d = 2 - 2 s; float32."""
    mixed = np.float32(2.0 * weight) * similarities
    mixed += np.float32(1.0 - weight) * jaccard - np.float32(weight)
    return np.asarray(mixed)


def rank_all(
    minima: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray],
    queries: np.ndarray,
    gallery: np.ndarray,
    *,
    k: int,
    weight: float,
) -> NeighbourLists:
    """The ``k`` best of all gallery rows.

    Args:
        minima: (B, M) float32, sums of minima of the vectors of queries and gallery rows; written over.
        sums: (B,) and (M,) of the vectors themselves, above 0.
        queries: (B, D) float32, unit rows.
        gallery: (M, D) float32, unit rows.
        k: how many, at most M.
        weight: of the inner product, 0 to 1.
    """
    minima /= sums[0][:, None] + sums[1] - minima  # the sums of maxima
    return take_best(mix_similarities(minima, queries @ gallery.T, weight), k)


def rank_sharing(
    minima: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray],
    queries: np.ndarray,
    gallery: np.ndarray,
    lists: NeighbourLists,
    *,
    weight: float,
) -> NeighbourLists:
    """The best of all gallery rows, as many as lists have: those that share anything and those of the lists are mixed.

    A row that shares nothing has the largest Jaccard distance, so that K rows of larger inner product are all before
    it; where the lists are of an exact search, it is not among the K best unless it is in its list.

    Args:
        minima: as for `rank_all`.
        sums: as for `rank_all`.
        queries: as for `rank_all`.
        gallery: as for `rank_all`.
        lists: the K most similar gallery rows of each query.
        weight: of the inner product, 0 to 1.
    """
    from scipy.sparse import csr_matrix

    is_candidate = minima > 0
    np.put_along_axis(is_candidate, lists.rows, True, axis=1)
    owners, rows = np.nonzero(is_candidate)
    shared = minima[owners, rows]
    jaccard = shared / (sums[0][owners] + sums[1][rows] - shared)
    mixed = mix_similarities(jaccard, compute_pair_similarities(queries, gallery, owners, rows), weight)
    limits = np.searchsorted(owners, np.arange(len(minima) + 1))
    return take_best_candidates(csr_matrix((mixed, rows, limits), shape=minima.shape), lists.rows.shape[1])
