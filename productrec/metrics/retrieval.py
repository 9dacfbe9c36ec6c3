"""Retrieval metrics: whether a query's nearest neighbours are of its own class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from productrec.errors import DataError, describe_offenders
from productrec.metrics.classification import sum_precisions
from productrec.metrics.figures import RETRIEVAL_FIGURES
from productrec.metrics.ranks import TILE_QUERIES, TILE_ROWS, RankedQueries, rank_positives

RECALL_CUTOFFS = (1, 2, 4, 8, 10, 100, 1000)


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


@dataclass(frozen=True)
class Retrieval:
    """What retrieval gave each of Q queries; :meth:`measure` sums it up.

    ``positives``: (Q,) gallery rows of its class, R; ``first_ranks``: (Q,) rank of the first of them, from 1, 0 where
    there is none; ``r_precisions``, ``average_precisions_at_r``: (Q,); ``average_precisions_at_k``: K to (Q,);
    ``nearest``: (Q,) gallery row that ranks first; ``similarities``: (Q,) its similarity; ``gallery_rows``: M;
    ``cutoffs``: of Recall@K.
    """

    positives: NDArray[np.int64]
    first_ranks: NDArray[np.int64]
    r_precisions: NDArray[np.float64]
    average_precisions_at_r: NDArray[np.float64]
    average_precisions_at_k: dict[int, NDArray[np.float64]]
    nearest: NDArray[np.int64]
    similarities: NDArray[np.float32]
    gallery_rows: int
    cutoffs: tuple[int, ...]

    @property
    def without_positives(self) -> int:
        """Queries that have nothing to find."""
        return int((self.positives == 0).sum())

    def measure(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """Figures, each in [0, 1], higher is better.

        Means are over the queries with positives; the others count in ``gap`` alone, where what they find is wrong.

        - ``recall@K``: share of queries with a positive among the first K (Jégou et al., PAMI 2011; Song et al., 2016).
        - ``map@r``, ``r_precision``: see :func:`compute_map_at_r`; share of positives among the first R.
        - ``mrr``: mean of 1 / rank of the first positive.
        - ``map@K``: mean over queries of (1 / min(R, K)) sum over i = 1..K of P(i), as Kaggle has it.
        - ``gap``: global average precision (Perronnin et al., CVPR 2009; Google Landmark): each query's nearest row is
          a prediction, those of all queries are ranked together by similarity, (1 / M) sum of P(i) over the right
          ones, M being the queries with positives. Equal similarities rank by query, lower first.

        Args:
            weights: (Q,) how often each query counts; None for once each.

        Returns:
            All figures by name; NaN where no query with positives counts.
        """
        times = np.ones(len(self.positives)) if weights is None else weights
        asked = times * (self.positives > 0)
        total = float(asked.sum())
        if total == 0:
            return dict.fromkeys(self._values, float("nan")) | {"gap": float("nan")}
        means = {name: float(asked @ values / total) for name, values in self._values.items()}
        order = self._by_similarity
        counted, right = times[order], (times * (self.first_ranks == 1))[order]
        return means | {"gap": sum_precisions(right, counted) / total}

    @cached_property
    def _values(self) -> dict[str, NDArray[Any]]:
        first = np.maximum(self.first_ranks, 1)
        values: dict[str, NDArray[Any]] = {f"recall@{k}": first <= k for k in self.cutoffs}
        values |= {"map@r": self.average_precisions_at_r, "r_precision": self.r_precisions, "mrr": 1.0 / first}
        return values | {f"map@{k}": figures for k, figures in self.average_precisions_at_k.items()}

    @cached_property
    def _by_similarity(self) -> NDArray[np.int64]:
        return np.argsort(-self.similarities, kind="stable")


def compute_retrieval(
    queries: NDArray[Any],
    query_labels: NDArray[Any],
    gallery: NDArray[Any] | None = None,
    gallery_labels: NDArray[Any] | None = None,
    *,
    cutoffs: Sequence[int] = RECALL_CUTOFFS,
    precision_cutoffs: Sequence[int] = (),
    tile: tuple[int, int] = (TILE_QUERIES, TILE_ROWS),
    threads: int | None = None,
) -> Retrieval:
    """Exact retrieval of queries in a gallery, or, without one, of every row among all the others.

    Equal similarities rank by gallery row, lower first. Without a gallery a row is left out of its own neighbours by
    its index, so an exact duplicate still counts. Time grows with Q x M; memory is a few tiles (4 MB each), and about
    100 bytes a query: see :func:`productrec.metrics.ranks.rank_positives`.

    Args:
        queries: (Q, D) float32, unit rows (other floats are converted).
        query_labels: (Q,) integers.
        gallery: (M, D), as the queries; None for the queries themselves.
        gallery_labels: (M,) integers.
        cutoffs: K of Recall@K, each at least 1.
        precision_cutoffs: K of MAP@K, each at least 1; large ones take time.
        tile: decides memory and time alone.
        threads: None for one a core.

    Raises:
        DataError: shapes do not fit, a row is not finite or not of unit length, or a cutoff is below 1.
    """
    where = "retrieval"
    rows = check_embeddings(where, queries, query_labels)
    own_rows = None
    if gallery is None or gallery_labels is None:
        if gallery is not None or gallery_labels is not None:
            raise DataError(f"{where}: gallery and gallery_labels go together; got one of them. Pass both, or none.")
        searched, searched_labels, own_rows = rows, query_labels, np.arange(len(rows))
    else:
        searched, searched_labels = check_embeddings(f"{where}, gallery", gallery, gallery_labels), gallery_labels
        if searched.shape[1] != rows.shape[1]:
            raise DataError(
                f"{where}: queries and gallery must be of one width; got {rows.shape[1]} and {searched.shape[1]}. "
                "Embed both with one network."
            )
    wrong = [k for k in (*cutoffs, *precision_cutoffs) if k < 1]
    if wrong:
        raise DataError(f"{where}: K must be at least 1; got {wrong[0]}. Recall@1 is the nearest neighbour's.")
    count = len(rows)
    result = Retrieval(
        positives=np.zeros(count, np.int64),
        first_ranks=np.zeros(count, np.int64),
        r_precisions=np.zeros(count),
        average_precisions_at_r=np.zeros(count),
        average_precisions_at_k={k: np.zeros(count) for k in sorted(set(precision_cutoffs))},
        nearest=np.full(count, -1),
        similarities=np.zeros(count, np.float32),
        gallery_rows=len(searched),
        cutoffs=tuple(sorted(set(cutoffs))),
    )
    for part in rank_positives(
        rows,
        query_labels,
        searched,
        searched_labels,
        own_rows=own_rows,
        depth=max(precision_cutoffs, default=0),
        tile=tile,
        threads=threads,
    ):
        _fill_in(result, part)
    return result


def compute_self_retrieval(
    embeddings: NDArray[Any],
    labels: NDArray[Any],
    *,
    is_query: NDArray[np.bool_] | None = None,
    tile: tuple[int, int] = (TILE_QUERIES, TILE_ROWS),
) -> dict[str, float]:
    """Retrieval within one set: every row asks all the others, or the queries among them ask the rest.

    Rows that have nothing to find are left out of both means (they remain as neighbours of others).

    Args:
        embeddings: (N, D) float32, unit rows (other floats are converted).
        labels: (N,) integers.
        is_query: (N,) bool, rows that are looked for among the others alone, as In-Shop has it; None where every row
            is looked for among all others.
        tile: see :func:`compute_retrieval`.

    Returns:
        ``recall@1`` and ``map@r``, see :meth:`Retrieval.measure`.

    Raises:
        DataError: as :func:`compute_retrieval`, or no query has a positive.
    """
    where = "self retrieval"
    if is_query is None:
        retrieval = compute_retrieval(embeddings, labels, cutoffs=(1,), tile=tile)
    else:
        check_embeddings(where, embeddings, labels)
        check_roles(where, is_query, len(embeddings))
        rest = ~is_query
        retrieval = compute_retrieval(
            embeddings[is_query], labels[is_query], embeddings[rest], labels[rest], cutoffs=(1,), tile=tile
        )
    if retrieval.without_positives == len(retrieval.positives):
        raise DataError(
            f"{where}: at least one query must have another row of its class; got {len(labels)} rows of "
            f"{len(np.unique(labels))} classes. Evaluate on a set with several images a class."
        )
    figures = retrieval.measure()
    return {name: figures[name] for name in RETRIEVAL_FIGURES}


def _fill_in(result: Retrieval, part: RankedQueries) -> None:
    """The figures of some queries, from the ranks of their positives."""
    counts = np.diff(part.starts)
    positives = np.repeat(counts, counts)
    owners = np.repeat(np.arange(len(counts)), counts)
    precisions = (np.arange(len(owners)) - part.starts[owners] + 1) / part.ranks

    def sum_up(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(owners, weights=values, minlength=len(counts)).astype(np.float64)

    within = part.ranks <= positives
    at_least_one = np.maximum(counts, 1)
    rows = part.queries
    result.positives[rows] = counts
    result.first_ranks[rows[counts > 0]] = part.ranks[part.starts[:-1][counts > 0]]
    result.r_precisions[rows] = sum_up(within) / at_least_one
    result.average_precisions_at_r[rows] = sum_up(within * precisions) / at_least_one
    for k, figures in result.average_precisions_at_k.items():
        figures[rows] = sum_up((part.ranks <= k) * precisions) / np.minimum(at_least_one, k)
    result.nearest[rows], result.similarities[rows] = part.nearest, part.similarities


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


def check_roles(where: str, is_query: NDArray[np.bool_], count: int) -> None:
    """Raise a DataError unless ``is_query`` (N,) tells some of ``count`` rows from others."""
    if is_query.shape != (count,) or is_query.dtype != np.bool_ or is_query.all() or not is_query.any():
        raise DataError(
            f"{where}: is_query must be {count} booleans, some true and some false; got shape {is_query.shape} of "
            f"{is_query.dtype}, {int(is_query.sum())} true. Leave it out where every row asks all the others."
        )


def check_embeddings(where: str, embeddings: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    """The embeddings (N, D) as float32, once they are known to be unit rows with one integer label (N,) each."""
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
