"""What a re-ranking is: its settings, formula and source, declared once, in the method's own file.

A file in `reranking.methods` holds one class; its name is the method's. Nothing heavy is imported at its head, so that
a recipe and the command line know every method without FAISS and scipy.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from productrec.errors import ArtifactError
from productrec.retrieval.reranking.expanded import Expanded
from productrec.retrieval.reranking.first_search import FirstSearch, NeighbourLists
from productrec.settings.choices import Choice


class Reranking(Choice):
    """A method with its settings: new lists from a first search.

    ``formula``: what it computes (q: query, g: gallery row, s: similarity); ``source``: where it is from;
    ``needs_labels``: whether it asks for the classes of gallery rows; ``depends_on_queries``: whether the list of one
    query depends on the others that are asked beside it.
    """

    formula: ClassVar[str]
    source: ClassVar[str]
    needs_labels: ClassVar[bool] = False
    depends_on_queries: ClassVar[bool] = False

    def rerank(self, first: FirstSearch) -> NeighbourLists:
        """Lists as deep as the first search's; the similarities are the method's own, larger for closer.

        Raises:
            ArtifactError: the method needs labels and the search has none.
        """
        if not len(first.queries):
            return first.lists
        self.check_labels(first.labels)
        return self.compute(first, self.prepare(first.gallery, first.labels))

    def check_labels(self, labels: np.ndarray | None) -> None:
        """Refuse a gallery without labels (M,), where the method needs them.

        Raises:
            ArtifactError: it lacks labels.
        """
        if self.needs_labels and labels is None:
            raise ArtifactError(
                f"{self.get_name()}: the gallery's rows must have labels; got none. "
                "Pass labels, or choose a method that needs none."
            )

    def prepare(self, gallery: np.ndarray, labels: np.ndarray | None) -> Any:
        """What the method makes of a gallery (M, D) alone, once for all queries; the labels are checked."""
        return None

    @abstractmethod
    def compute(self, first: FirstSearch, prepared: Any) -> NeighbourLists:
        """The new lists, of at least one query, by what `prepare` made of the search's gallery."""

    def tell(self) -> str:
        """The name, with those settings that are not the defaults: ``diffusion(k=10)``."""
        changed = self.model_dump(exclude_defaults=True).items()
        told = ", ".join(f"{key}={value}" for key, value in changed if key in type(self).model_fields)
        return f"{self.get_name()}({told})" if told else self.get_name()


class Expansion(Reranking):
    """A method that changes embeddings and then searches again, so that several can follow one another."""

    def expand(self, first: FirstSearch) -> tuple[np.ndarray, np.ndarray]:
        """New embeddings of queries (Q, P) and gallery (M, P), float32 of unit norm; zeros for what has no direction.

        Raises:
            ArtifactError: the method needs labels and the search has none.
        """
        self.check_labels(first.labels)
        prepared = self.prepare(first.gallery, first.labels)
        return self.expand_queries(first, prepared), prepared.gallery

    @abstractmethod
    def prepare(self, gallery: np.ndarray, labels: np.ndarray | None) -> Expanded:
        """The gallery's new embeddings; see `Reranking.prepare`."""

    @abstractmethod
    def expand_queries(self, first: FirstSearch, prepared: Expanded) -> np.ndarray:
        """The queries' new embeddings, each by itself and the gallery."""

    def compute(self, first: FirstSearch, prepared: Expanded) -> NeighbourLists:
        """See `Reranking.compute`."""
        return prepared.search(self.expand_queries(first, prepared), first.depth)
