"""What a re-ranking is: its settings, formula and source, declared once, in the method's own file.

A file in `reranking.methods` holds one class; its name is the method's. Nothing heavy is imported at its head, so that
a recipe and the command line know every method without FAISS and scipy.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from productrec.errors import ArtifactError
from productrec.retrieval.reranking.first_search import FirstSearch, NeighbourLists
from productrec.settings.choices import Choice


class Reranking(Choice):
    """A method with its settings: new lists from a first search.

    ``formula``: what it computes (q: query, g: gallery row, s: similarity); ``source``: where it is from;
    ``needs_labels``: whether it asks for the classes of gallery rows.
    """

    formula: ClassVar[str]
    source: ClassVar[str]
    needs_labels: ClassVar[bool] = False

    def rerank(self, first: FirstSearch) -> NeighbourLists:
        """Lists as deep as the first search's; the similarities are the method's own, larger for closer.

        Raises:
            ArtifactError: the method needs labels and the search has none.
        """
        if not len(first.queries):
            return first.lists
        return self.compute(self.check_labels(first))

    def check_labels(self, first: FirstSearch) -> FirstSearch:
        """The search, where it has what the method needs.

        Raises:
            ArtifactError: it lacks labels.
        """
        if self.needs_labels and first.labels is None:
            raise ArtifactError(
                f"{self.get_name()}: the gallery's rows must have labels; got none. "
                "Pass labels, or choose a method that needs none."
            )
        return first

    @abstractmethod
    def compute(self, first: FirstSearch) -> NeighbourLists:
        """The new lists, of at least one query; the search is checked."""


class Expansion(Reranking):
    """A method that changes embeddings and then searches again, so that several can follow one another."""

    def expand(self, first: FirstSearch) -> tuple[np.ndarray, np.ndarray]:
        """New embeddings of queries (Q, D) and gallery (M, D), float32 of unit norm.

        Raises:
            ArtifactError: the method needs labels and the search has none.
        """
        return self.compute_embeddings(self.check_labels(first))

    @abstractmethod
    def compute_embeddings(self, first: FirstSearch) -> tuple[np.ndarray, np.ndarray]:
        """The new embeddings; the search is checked."""

    def compute(self, first: FirstSearch) -> NeighbourLists:
        """See `Reranking.compute`."""
        return first.search_again(*self.compute_embeddings(first)).lists
