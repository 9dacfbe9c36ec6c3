"""A re-ranking made ready for one gallery, so that queries can be answered block by block, or one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from productrec.errors import ArtifactError
from productrec.retrieval.embedding_set import check_embeddings
from productrec.retrieval.reranking.declared import Expansion, Reranking
from productrec.retrieval.reranking.first_search import FirstSearch, NeighbourLists


class Reranked(NamedTuple):
    """New lists (Q, K), and the queries' embeddings (Q, D), changed where the method is an expansion."""

    lists: NeighbourLists
    queries: np.ndarray


@dataclass(frozen=True)
class ReadyReranking:
    """A method and what it made of a gallery (M, D) with labels (M,); made by `prepare_reranking`."""

    method: Reranking
    gallery: np.ndarray
    labels: np.ndarray | None
    prepared: Any

    @property
    def new_gallery(self) -> np.ndarray:
        """The gallery's embeddings (M, D) as the method leaves them."""
        return self.prepared.gallery if isinstance(self.method, Expansion) else self.gallery

    def rerank(self, queries: np.ndarray, lists: NeighbourLists) -> Reranked:
        """Re-rank what a first search in this gallery found.

        Args:
            queries: (Q, D) float32, unit rows.
            lists: their K most similar rows, K at least 1.

        Raises:
            ArtifactError: a query is not finite or not of unit norm.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if not len(queries):
            return Reranked(lists, queries)
        check_embeddings(queries, [f"row {row}" for row in range(len(queries))], "re-ranking: queries")
        first = FirstSearch(queries, self.gallery, lists, self.labels)
        if isinstance(self.method, Expansion):
            queries = self.method.expand_queries(first, self.prepared)
            return Reranked(self.prepared.search(queries, first.depth), queries)
        return Reranked(self.method.compute(first, self.prepared), queries)


def prepare_reranking(method: Reranking, gallery: np.ndarray, labels: np.ndarray | None = None) -> ReadyReranking:
    """Do what a method does with the gallery alone.

    Args:
        method: that is made ready.
        gallery: (M, D) float32, unit rows.
        labels: (M,) class of each row, negative where unknown.

    Raises:
        ArtifactError: the gallery is empty, a row is not finite or not of unit norm, or the method needs labels and
            no row has one.
    """
    if not len(gallery):
        raise ArtifactError(f"{method.get_name()}: the gallery must hold at least one image; got none.")
    check_embeddings(gallery, [f"row {row}" for row in range(len(gallery))], "re-ranking: gallery")
    known = None if labels is None or not (np.asarray(labels) >= 0).any() else np.asarray(labels, dtype=np.int64)
    method.check_labels(known)
    gallery = np.ascontiguousarray(gallery, dtype=np.float32)
    return ReadyReranking(method, gallery, known, method.prepare(gallery, known))
