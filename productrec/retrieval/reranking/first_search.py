"""The first search that every re-ranking starts from, and the lists of neighbours that it begins and ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from productrec.errors import ArtifactError
from productrec.retrieval.embedding_set import check_embeddings

UNLABELLED = -1  # and any other negative label


class NeighbourLists(NamedTuple):
    """Gallery rows of each query, best first: ``rows`` (Q, K) int64, ``similarities`` (Q, K) float32 descending."""

    rows: np.ndarray
    similarities: np.ndarray


@dataclass(frozen=True)
class FirstSearch:
    """Queries, gallery, and the gallery rows that inner product found; made by `search_first`, which checks it.

    ``queries`` (Q, D) and ``gallery`` (M, D) float32 of unit norm; ``lists``: K rows a query, K at most M; ``labels``
    (M,) int64 class of each gallery row, negative where unknown, None where no row's is known.
    """

    queries: np.ndarray
    gallery: np.ndarray
    lists: NeighbourLists
    labels: np.ndarray | None = None

    @property
    def depth(self) -> int:
        """K: rows in each list."""
        return int(self.lists.rows.shape[1])

    def search_again(self, queries: np.ndarray, gallery: np.ndarray) -> FirstSearch:
        """The same search with other embeddings of the same images, as deep."""
        from productrec.retrieval.engine import search_rows

        lists = NeighbourLists(*search_rows(queries, gallery, self.depth))
        return replace(self, queries=queries, gallery=gallery, lists=lists)


def search_first(
    queries: np.ndarray,
    gallery: np.ndarray,
    *,
    k: int,
    labels: np.ndarray | None = None,
    query_ids: Sequence[str] | None = None,
    gallery_ids: Sequence[str] | None = None,
    lists: tuple[np.ndarray, np.ndarray] | None = None,
) -> FirstSearch:
    """Search the ``k`` most similar gallery rows of each query, and check everything that a re-ranking relies on.

    Args:
        queries: (Q, D) float32, unit rows; Q may be 0.
        gallery: (M, D) float32, unit rows.
        k: neighbours of each query; all M, where those are fewer.
        labels: (M,) class of each gallery row, negative where unknown.
        query_ids: (Q,) names for a message; row numbers where None.
        gallery_ids: (M,) names for a message; row numbers where None.
        lists: rows (Q, K) and similarities (Q, K) of a search that was done already, as by an approximate index.

    Raises:
        ArtifactError: the gallery is empty, widths differ, a row is not finite or not of unit norm (its id is told),
            labels or given lists do not fit, or k is below 1.
    """
    if not len(gallery):
        raise ArtifactError("re-ranking: the gallery must hold at least one image; got none.")
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ArtifactError(
            "re-ranking: queries (Q, D) and gallery (M, D) must be of one width; "
            f"got shapes {queries.shape} and {gallery.shape}. Embed both with one network."
        )
    if k < 1:
        raise ArtifactError(f"re-ranking: k must be at least 1; got {k}.")
    _check_rows(queries, query_ids, "queries")
    _check_rows(gallery, gallery_ids, "gallery")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (len(gallery),) or not np.issubdtype(labels.dtype, np.integer):
            raise ArtifactError(
                f"re-ranking: labels must be {len(gallery)} integers, one a gallery row; "
                f"got shape {labels.shape} of {labels.dtype}. Use {UNLABELLED} where a row's class is unknown."
            )
        labels = labels.astype(np.int64)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    gallery = np.ascontiguousarray(gallery, dtype=np.float32)
    if lists is None:
        # One search function stands for all: FAISS is imported in `index` alone, and not before it is needed.
        from productrec.retrieval.engine import search_rows

        return FirstSearch(queries, gallery, NeighbourLists(*search_rows(queries, gallery, k)), labels)
    return FirstSearch(queries, gallery, _check_lists(lists, len(queries), len(gallery)), labels)


def _check_rows(embeddings: np.ndarray, ids: Sequence[str] | None, where: str) -> None:
    names = [f"row {row}" for row in range(len(embeddings))] if ids is None else ids
    if len(names) != len(embeddings):
        raise ArtifactError(f"re-ranking: {where} must have one id a row; got {len(names)} and {len(embeddings)}.")
    check_embeddings(embeddings, names, f"re-ranking: {where}")


def _check_lists(lists: tuple[np.ndarray, np.ndarray], queries: int, rows: int) -> NeighbourLists:
    found, similarities = np.asarray(lists[0], dtype=np.int64), np.asarray(lists[1], dtype=np.float32)
    if found.ndim != 2 or found.shape != similarities.shape or len(found) != queries or not found.shape[1]:
        raise ArtifactError(
            f"re-ranking: lists must be rows ({queries}, K) and similarities of the same shape, K at least 1; "
            f"got {found.shape} and {similarities.shape}. Search with these queries."
        )
    if found.size and (found.min() < 0 or found.max() >= rows):
        raise ArtifactError(
            f"re-ranking: lists must name rows from 0 to {rows - 1}; got {found.min()} to {found.max()}. "
            "Search in this gallery."
        )
    ordered = np.sort(found, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any() or not (np.diff(similarities, axis=1) <= 0).all():
        raise ArtifactError(
            "re-ranking: each list must name a row once, similarities finite and descending; got one that does not. "
            "Search again."
        )
    return NeighbourLists(found, similarities)
