"""Sums of minima of sparse vectors, the numerator of a weighed Jaccard similarity, for a block of queries at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from productrec.retrieval.reranking.engine.candidates import list_owners

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix, csr_matrix

_TERMS_AT_A_TIME = 1 << 20
_CELLS_AT_A_TIME = 1 << 22


def share_out_queries(vectors: csr_matrix, gallery: csc_matrix) -> list[slice]:
    """Blocks of queries for `sum_minima`, so that its terms and its cells stay few; one query at least."""
    heights = np.diff(gallery.indptr)
    terms = np.bincount(list_owners(vectors), heights[vectors.indices], minlength=vectors.shape[0])
    costs = terms / _TERMS_AT_A_TIME + gallery.shape[0] / _CELLS_AT_A_TIME
    starts = np.flatnonzero(np.diff(np.floor(np.cumsum(costs)), prepend=-1.0))
    return [slice(*limits) for limits in zip(starts, [*starts[1:], len(costs)], strict=True)]


def sum_minima(vectors: csr_matrix, gallery: csc_matrix) -> np.ndarray:
    """``sum_j min(q_j, g_j)`` of queries and gallery rows: through each j of a query, the rows that have it too.

    Args:
        vectors: (B, N) float32 at least 0, of some queries.
        gallery: (M, N) float32 at least 0, by columns.

    Returns:
        (B, M) float32.
    """
    from scipy.sparse import csr_matrix

    heights = np.diff(gallery.indptr)[vectors.indices].astype(np.int64)
    ends = np.cumsum(heights)
    # Entry e of the queries meets the gallery's entries of its column: `heights[e]` terms, one after another.
    firsts = gallery.indptr[vectors.indices] - ends + heights
    places = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(firsts, heights)
    minima = np.minimum(np.repeat(vectors.data, heights), gallery.data[places])
    limits = np.concatenate([[0], ends])[vectors.indptr]
    terms = csr_matrix((minima, gallery.indices[places], limits), shape=(vectors.shape[0], gallery.shape[0]))
    return np.asarray(terms.toarray())  # which sums up terms of the same cell
