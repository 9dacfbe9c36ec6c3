"""Retrieval metrics: whether a query's nearest neighbours are of its own class."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from productrec.errors import DataError, describe_offenders

# Rows sorted at a time; their 64-bit keys (10 MB at 20,000 columns) then stay near the processor.
_SORTED_ROWS = 64


def compute_recall_at_k(neighbour_labels: NDArray[Any], query_labels: NDArray[Any], k: int) -> float:
    """Share of queries with at least one neighbour of their own class among the first k.

    Every query counts. One whose class is not in the gallery cannot succeed and is a miss; leave such queries out
    beforehand if they are not meant.

    Args:
        neighbour_labels: (Q, K) integers, labels of the gallery rows found, nearest first, the query itself left out.
        query_labels: (Q,) integers.
        k: from 1 to K.

    Returns:
        Share in [0, 1], higher is better.

    Raises:
        DataError: shapes do not fit, no queries, or k outside 1 to K.
    """
    where = "recall@k"
    _check_neighbours(where, neighbour_labels, query_labels)
    if not 1 <= k <= neighbour_labels.shape[1]:
        raise DataError(
            f"{where}: k must be from 1 to {neighbour_labels.shape[1]}, the neighbours found; got {k}. "
            "Search for more neighbours."
        )
    return float((neighbour_labels[:, :k] == query_labels[:, None]).any(axis=1).mean())


def compute_map_at_r(neighbour_labels: NDArray[Any], query_labels: NDArray[Any], positives: NDArray[Any]) -> float:
    """Mean average precision at R: the mean over queries of (1 / R) sum over i = 1..R of P(i).

    Source: Musgrave, Belongie and Lim, *A Metric Learning Reality Check*, ECCV 2020. R is how many gallery
    rows are of the query's class, and P(i) the precision among the first i neighbours if the i-th is of that class,
    else 0. Queries with R = 0 have no answer to find and are left out of the mean: ``(positives == 0).sum()`` of them.

    Args:
        neighbour_labels: (Q, K) integers, labels of the gallery rows found, nearest first, the query itself left out;
            K at least the largest R.
        query_labels: (Q,) integers.
        positives: (Q,) integers, R of each query, the query itself not counted.

    Returns:
        Mean in [0, 1], higher is better.

    Raises:
        DataError: shapes do not fit, no query has a positive, an R is negative or above K.

    Example:
        >>> compute_map_at_r(np.array([[1, 0, 1]]), np.array([1]), np.array([3]))  # (1/1 + 0 + 2/3) / 3
        0.5555555555555555
    """
    where = "MAP@R"
    _check_neighbours(where, neighbour_labels, query_labels)
    if positives.shape != query_labels.shape or not np.issubdtype(positives.dtype, np.integer):
        raise DataError(
            f"{where}: positives must be {len(query_labels)} integers, one a query; got shape {positives.shape} "
            f"of {positives.dtype}. Count the gallery rows of each query's class."
        )
    low, high = int(positives.min()), int(positives.max())
    if low < 0 or high > neighbour_labels.shape[1]:
        raise DataError(
            f"{where}: positives must be from 0 to {neighbour_labels.shape[1]}, the neighbours found; "
            f"got {low} to {high}. Search for at least {max(high, 1)} neighbours."
        )
    if high == 0:
        raise DataError(
            f"{where}: at least one query must have a positive; got none in {len(query_labels)}. "
            "Use a gallery that holds the queries' classes."
        )
    counted = positives > 0
    hits = neighbour_labels[counted, :high] == query_labels[counted, None]
    return float(_compute_average_precisions(hits, positives[counted]).mean())


def compute_self_retrieval(
    embeddings: NDArray[Any],
    labels: NDArray[Any],
    *,
    is_query: NDArray[np.bool_] | None = None,
    block_rows: int = 1024,
) -> dict[str, float]:
    """Retrieval within one set: every row asks all the others, or the queries among them ask the rest.

    A row is left out of its own neighbours by its index, so an exact duplicate still counts as a neighbour. Equal
    similarities rank by row, lower first. Rows that are alone in their class have nothing to find and are left out of
    both means (they remain as neighbours of others); ``counts == 1`` of ``np.unique(labels, return_counts=True)`` says
    which.

    Time grows with N squared, memory with ``block_rows`` x N x 4 bytes: 82 MB at N = 20,000.

    Args:
        embeddings: (N, D) float32, unit rows (other floats are converted).
        labels: (N,) integers.
        is_query: (N,) bool, rows that are looked for among the others alone, as In-Shop has it; None where every row
            is looked for among all others.
        block_rows: queries compared at a time.

    Returns:
        ``recall@1``, the share of queries whose nearest neighbour is of their class, and ``map@r`` (see
        :func:`compute_map_at_r`), both in [0, 1], higher is better.

    Raises:
        DataError: shapes do not fit, a row is not finite or not of unit length, every row is alone in its class.
    """
    where = "self retrieval"
    rows = _check_embeddings(where, embeddings, labels)
    if block_rows < 1:
        raise DataError(f"{where}: block_rows must be at least 1; got {block_rows}. 1024 suits most machines.")
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if is_query is None:
        gallery, gallery_classes, positives = rows, classes, counts[classes] - 1
    else:
        _check_roles(where, is_query, len(rows))
        gallery, gallery_classes = rows[~is_query], classes[~is_query]
        positives = np.where(is_query, np.bincount(gallery_classes, minlength=len(counts))[classes], 0)
    # Smallest R first: a block is sorted as deep as its largest R, so one large class costs its own rows only.
    queries = np.argsort(positives, kind="stable")
    queries = queries[np.searchsorted(positives[queries], 1) :]
    if len(queries) == 0:
        raise DataError(
            f"{where}: at least one query must have another row of its class; got {len(rows)} rows of {len(counts)} "
            "classes. Evaluate on a set with several images a class."
        )
    first_hits = np.empty(len(queries), dtype=bool)
    precisions = np.empty(len(queries))
    for start in range(0, len(queries), block_rows):
        block = queries[start : start + block_rows]
        similarities = rows[block] @ gallery.T
        if is_query is None:
            similarities[np.arange(len(block)), block] = -np.inf
        for inner in range(0, len(block), _SORTED_ROWS):
            asked = block[inner : inner + _SORTED_ROWS]
            nearest = _find_nearest(similarities[inner : inner + _SORTED_ROWS], int(positives[asked].max()))
            hits = gallery_classes[nearest] == classes[asked, None]
            done = slice(start + inner, start + inner + len(asked))
            first_hits[done] = hits[:, 0]
            precisions[done] = _compute_average_precisions(hits, positives[asked])
    return {"recall@1": float(first_hits.mean()), "map@r": float(precisions.mean())}


def _find_nearest(similarities: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
    """Columns (Q, depth) of the largest similarities (Q, N), largest first, ties to the lower column."""
    # One integer a pair: the similarity in the high half, as an integer of the same order, and the column, reversed,
    # in the low half. No two are equal, so a partition cannot break a tie at will.
    column_count = similarities.shape[1]
    bits = (similarities + np.float32(0.0)).view(np.int32)  # adding 0 turns -0.0 into 0.0, its equal
    ordered = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    keys = (ordered << 32) | np.arange(column_count - 1, -1, -1)
    keys.partition(column_count - depth, axis=1)
    nearest = np.sort(keys[:, column_count - depth :], axis=1)[:, ::-1]
    found: NDArray[np.int64] = column_count - 1 - (nearest & 0xFFFFFFFF)
    return found


def _compute_average_precisions(hits: NDArray[np.bool_], positives: NDArray[Any]) -> NDArray[np.float64]:
    """Average precision at R of each query, (Q,), from hits (Q, K) in order of rank and R (Q,), all at least 1."""
    ranks = np.arange(1, hits.shape[1] + 1)
    counted = hits & (ranks <= positives[:, None])
    precisions = np.where(counted, counted.cumsum(axis=1) / ranks, 0.0)
    averages: NDArray[np.float64] = precisions.sum(axis=1) / positives
    return averages


def _check_neighbours(where: str, neighbour_labels: NDArray[Any], query_labels: NDArray[Any]) -> None:
    if neighbour_labels.ndim != 2 or 0 in neighbour_labels.shape:
        raise DataError(
            f"{where}: neighbour_labels must be (Q, K) with at least one query and one neighbour; "
            f"got shape {neighbour_labels.shape}. Check that the search found anything."
        )
    if query_labels.shape != neighbour_labels.shape[:1]:
        raise DataError(
            f"{where}: query_labels must be one label a query, shape ({len(neighbour_labels)},); "
            f"got {query_labels.shape}. Take both from the same neighbour set."
        )
    for name, values in (("neighbour_labels", neighbour_labels), ("query_labels", query_labels)):
        if not np.issubdtype(values.dtype, np.integer):
            raise DataError(f"{where}: {name} must be integers; got {values.dtype}. Pass labels, not similarities.")


def _check_roles(where: str, is_query: NDArray[np.bool_], count: int) -> None:
    if is_query.shape != (count,) or is_query.dtype != np.bool_ or is_query.all() or not is_query.any():
        raise DataError(
            f"{where}: is_query must be {count} booleans, some true and some false; got shape {is_query.shape} of "
            f"{is_query.dtype}, {int(is_query.sum())} true. Leave it out where every row asks all the others."
        )


def _check_embeddings(where: str, embeddings: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    if embeddings.ndim != 2 or 0 in embeddings.shape or not np.issubdtype(embeddings.dtype, np.floating):
        raise DataError(
            f"{where}: embeddings must be (N, D) floats with at least one row; "
            f"got shape {embeddings.shape} of {embeddings.dtype}. Pass an embedding set's matrix."
        )
    if labels.shape != embeddings.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where}: labels must be {len(embeddings)} integers; got shape {labels.shape} of {labels.dtype}. "
            "Leave unlabelled rows out."
        )
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= 1e-2))  # not "> 1e-2", which a NaN would pass
    if len(wrong):
        raise DataError(
            f"{where}: every embedding must be finite and of length 1; got others in rows "
            f"{describe_offenders(wrong)}. Normalise the rows."
        )
    return rows
