"""Candidates: the gallery rows that a query may get, as a sparse matrix, and the best of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from productrec.retrieval.reranking.first_search import NeighbourLists

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_PAIRS_AT_A_TIME = 16384


def compute_pair_similarities(
    queries: np.ndarray, gallery: np.ndarray, of_query: np.ndarray, of_row: np.ndarray
) -> np.ndarray:
    """Inner products (P,) float32 of pairs: query ``of_query[p]`` with gallery row ``of_row[p]``."""
    similarities = np.empty(len(of_query), dtype=np.float32)
    for start in range(0, len(of_query), _PAIRS_AT_A_TIME):  # so many stay in the cache
        part = slice(start, start + _PAIRS_AT_A_TIME)
        np.einsum("pd,pd->p", queries[of_query[part]], gallery[of_row[part]], out=similarities[part])
    return similarities


def list_owners(matrix: csr_matrix) -> np.ndarray:
    """The matrix row of each stored entry, (nnz,) int64."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def take_best(values: np.ndarray, k: int) -> NeighbourLists:
    """The ``k`` columns of largest value of each query, best first; equal ones in the order of their columns.

    Args:
        values: (B, M) float32 without NaN.
        k: how many, at most M.
    """
    count, width = values.shape
    if k < width:
        worst = np.partition(values, width - k, axis=1)[:, width - k]
        owners, columns = np.nonzero(values >= worst[:, None])  # more than k where several equal the k-th
    else:
        owners, columns = np.repeat(np.arange(count), width), np.tile(np.arange(width), count)
    sizes = np.bincount(owners, minlength=count)
    places = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    shape = (count, int(sizes.max(initial=k)))
    rows, best = np.zeros(shape, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)
    rows[owners, places], best[owners, places] = columns, values[owners, columns]
    order = np.argsort(-best, axis=1, kind="stable")[:, :k]
    return NeighbourLists(np.take_along_axis(rows, order, axis=1), np.take_along_axis(best, order, axis=1))


def take_best_candidates(candidates: csr_matrix, k: int) -> NeighbourLists:
    """The ``k`` candidates of largest value of each query; equal ones in the order of their rows.

    Args:
        candidates: (Q, M) values, indices sorted; every query has at least ``k`` entries, each row once.
        k: how many.
    """
    counts = np.diff(candidates.indptr)
    places = np.arange(candidates.nnz) - np.repeat(candidates.indptr[:-1].astype(np.int64), counts)
    shape = (len(counts), int(counts.max(initial=k)))
    values, rows = np.full(shape, -np.inf, dtype=np.float32), np.zeros(shape, dtype=np.int64)
    owners = list_owners(candidates)
    values[owners, places], rows[owners, places] = candidates.data, candidates.indices
    columns, best = take_best(values, k)
    return NeighbourLists(np.take_along_axis(rows, columns, axis=1), best)
