"""An expanded gallery: the embeddings that an expansion made of it, searched as often as queries come."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from productrec.retrieval.reranking.first_search import NeighbourLists

if TYPE_CHECKING:
    from productrec.retrieval.searcher import Searcher


@dataclass(frozen=True)
class Expanded:
    """What an expansion makes of a gallery.

    ``gallery``: (M, D) float32, the new embeddings; ``how``: what else the method needs to expand queries.
    """

    gallery: np.ndarray
    how: Any = None

    def search(self, queries: np.ndarray, k: int) -> NeighbourLists:
        """The ``k`` most similar rows of each query (Q, D), exactly; all of them, where those are fewer."""
        found = self._searcher.search(queries, min(k, len(self.gallery)))
        return NeighbourLists(found.rows, found.similarities)

    @cached_property
    def _searcher(self) -> Searcher:
        from productrec.retrieval.engine import build_engine
        from productrec.retrieval.searcher import Searcher

        return Searcher(build_engine(self.gallery))
