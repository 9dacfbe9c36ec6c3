"""The best gallery rows by a mix of Jaccard similarity and inner product, of a block of queries."""

from __future__ import annotations

import numpy as np

from productrec.retrieval.reranking.engine.candidates import (
    compute_pair_similarities,
    take_best,
    take_best_candidates,
)
from productrec.retrieval.reranking.first_search import NeighbourLists

# Where more pairs than this share something, all inner products at once cost less than those of pairs one by one.
DENSE_SHARE = 0.05


def mix_similarities(jaccard: np.ndarray, similarities: np.ndarray, weight: float) -> np.ndarray:
    """``1 - d*``: ``(1 - weight) * jaccard + weight * (1 - d)`` with the squared distance d = 2 - 2 s; float32."""
    mixed = np.float32(2.0 * weight) * similarities
    mixed += np.float32(1.0 - weight) * jaccard - np.float32(weight)
    return np.asarray(mixed)


def rank_mixed(
    minima: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray],
    queries: np.ndarray,
    gallery: np.ndarray,
    lists: NeighbourLists,
    *,
    weight: float,
) -> NeighbourLists:
    """The best of all gallery rows by ``1 - d*``, as many as the lists have.

    Where few pairs share anything, only these and those of the lists are mixed. A row that shares nothing has the
    largest Jaccard distance, so that the rows of larger inner product are all before it: where the lists are of an
    exact search, it is among the K best only if it is in its list.

    Args:
        minima: (B, M) float32, sums of minima of the vectors of queries and gallery rows; written over.
        sums: (B,) and (M,) of the vectors themselves, above 0.
        queries: (B, D) float32, unit rows.
        gallery: (M, D) float32, unit rows.
        lists: the K most similar gallery rows of each query.
        weight: of the inner product, 0 to 1.
    """
    from scipy.sparse import csr_matrix

    k = lists.rows.shape[1]
    is_candidate = minima > 0
    if np.count_nonzero(is_candidate) > DENSE_SHARE * minima.size:
        minima /= sums[0][:, None] + sums[1] - minima  # the sums of maxima
        return take_best(mix_similarities(minima, queries @ gallery.T, weight), k)
    np.put_along_axis(is_candidate, lists.rows, True, axis=1)
    owners, rows = np.nonzero(is_candidate)
    shared = minima[owners, rows]
    jaccard = shared / (sums[0][owners] + sums[1][rows] - shared)
    mixed = mix_similarities(jaccard, compute_pair_similarities(queries, gallery, owners, rows), weight)
    limits = np.searchsorted(owners, np.arange(len(minima) + 1))
    return take_best_candidates(csr_matrix((mixed, rows, limits), shape=minima.shape), k)
