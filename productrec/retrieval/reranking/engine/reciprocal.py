"""k-reciprocal sets and their vectors, sparse: what a row's neighbourhood is, as memory N times k."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from productrec.retrieval.reranking.engine.candidates import compute_pair_similarities, list_owners

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_ROWS_AT_A_TIME = 8192  # whose sets are expanded together
_OVERLAP = 2 / 3  # a candidate's smaller set must lie within the row's set by this share


def build_reciprocal_sets(neighbours: np.ndarray, k: int) -> csr_matrix:
    """R(i, k): the rows j among i's k nearest that have i among theirs, and i itself.

    Args:
        neighbours: (N, K) other rows, nearest first, K at least ``k`` or all there are.
        k: how many of them count.

    Returns:
        (N, N) float32 of ones, indices sorted.
    """
    from scipy.sparse import csr_matrix

    count, nearest = len(neighbours), neighbours[:, :k]
    width = nearest.shape[1] + 1
    columns = np.empty((count, width), dtype=np.int32)
    columns[:, 0] = np.arange(count)
    columns[:, 1:] = nearest
    columns.sort(axis=1)
    limits = np.arange(0, count * width + 1, width)
    ones = np.ones(columns.size, dtype=np.float32)
    forward = csr_matrix((ones, columns.ravel(), limits), shape=(count, count))
    return forward.multiply(forward.T.tocsr()).tocsr()


def expand_sets(sets: csr_matrix, halves: csr_matrix, rows: slice) -> csr_matrix:
    """R*(i, k) of some rows: R(i, k) and every R(q, k / 2), q of R(i, k), that has 2/3 of its rows in R(i, k).

    Returns:
        (B, N), the pattern alone counts, indices sorted.
    """
    from scipy.sparse import csr_matrix

    own = sets[rows]
    # How many rows of R(q, k / 2) lie in R(i, k), for the q of R(i, k) alone; being mutual is symmetric.
    shared = own.multiply(own @ halves).tocsr()
    sizes = np.diff(halves.indptr)
    is_joined = shared.data >= _OVERLAP * sizes[shared.indices] - 1e-6
    kept = np.concatenate([[0], np.cumsum(is_joined)])[shared.indptr]
    joined = csr_matrix((np.ones(is_joined.sum(), np.float32), shared.indices[is_joined], kept), shape=own.shape)
    expanded = (own + joined @ halves).tocsr()
    expanded.sort_indices()
    return expanded


def encode_neighbourhoods(
    embeddings: np.ndarray,
    neighbours: np.ndarray,
    *,
    k1: int,
    k2: int,
    pool: ThreadPoolExecutor,
) -> csr_matrix:
    """The vector of each row: exp(-d(i, j)) for the j of R*(i, k1), then the mean over i and its nearest rows.

    Args:
        embeddings: (N, D) float32, unit rows; d is their squared Euclidean distance, 2 - 2 s.
        neighbours: (N, K) other rows, nearest first, K at least max(k1, k2 - 1) or all there are.
        k1: neighbours that make a reciprocal set.
        k2: rows of the local query expansion, the row itself counted as the first; 1 for none.
        pool: threads that work side by side.

    Returns:
        (N, N) float32.
    """
    from scipy.sparse import csr_matrix, vstack

    count = len(embeddings)
    parts = [slice(start, min(start + _ROWS_AT_A_TIME, count)) for start in range(0, count, _ROWS_AT_A_TIME)]
    vectors = vstack(list(_weigh_sets(embeddings, neighbours, k1, parts, pool)), format="csr")
    width = min(k2, neighbours.shape[1] + 1)
    if width < 2:
        return vectors

    def average(part: slice) -> csr_matrix:
        nearest = np.concatenate([np.arange(part.start, part.stop)[:, None], neighbours[part, : width - 1]], axis=1)
        limits = np.arange(0, nearest.size + 1, width)
        shares = np.full(nearest.size, 1.0 / width, dtype=np.float32)
        return csr_matrix((shares, nearest.ravel(), limits), shape=(len(nearest), count)) @ vectors

    return vstack(list(pool.map(average, parts)), format="csr")


def _weigh_sets(
    embeddings: np.ndarray, neighbours: np.ndarray, k1: int, parts: list[slice], pool: ThreadPoolExecutor
) -> Iterator[csr_matrix]:
    sets = build_reciprocal_sets(neighbours, k1)
    halves = build_reciprocal_sets(neighbours, round(k1 / 2))

    def weigh(part: slice) -> csr_matrix:
        expanded = expand_sets(sets, halves, part)
        owners = list_owners(expanded) + part.start
        expanded.data = np.exp(2.0 * compute_pair_similarities(embeddings, embeddings, owners, expanded.indices) - 2.0)
        return expanded

    yield from pool.map(weigh, parts)
