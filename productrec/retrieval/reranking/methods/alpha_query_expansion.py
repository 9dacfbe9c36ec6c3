"""Alpha query expansion: a query asks again as the mean of itself and what it found."""

from __future__ import annotations

import numpy as np

from productrec.retrieval.reranking.declared import Expansion
from productrec.retrieval.reranking.engine.mixing import mix_rows, weigh_by_similarity
from productrec.retrieval.reranking.expanded import Expanded
from productrec.retrieval.reranking.first_search import FirstSearch
from productrec.settings.fields import Count, NonNegative, setting


class AlphaQueryExpansion(Expansion):
    """Alpha query expansion (Radenovic, Tolias and Chum, 2018).

    A query becomes the direction of itself, with weight 1, and its k nearest gallery rows, each weighed by its
    similarity to the power alpha; one that is not similar at all (s at most 0) has no weight. Alpha 0 is the average
    query expansion of Chum et al. (ICCV 2007); k 0 changes nothing.
    """

    formula = "q' = normalise(q + sum_i max(s_i, 0)^alpha g_i), i = 1..k; search again"
    source = "Radenovic, Tolias, Chum, 2018, Fine-tuning CNN image retrieval with no human annotation"

    k: Count = setting(5, "gallery rows that are mixed into a query")
    alpha: NonNegative = setting(3.0, "power of their similarities; a large one listens to the nearest")

    def prepare(self, gallery: np.ndarray, labels: np.ndarray | None) -> Expanded:
        """See `Expansion.prepare`; the gallery stays as it is."""
        return Expanded(gallery)

    def expand_queries(self, first: FirstSearch, prepared: Expanded) -> np.ndarray:
        """See `Expansion.expand_queries`."""
        if not self.k:
            return first.queries
        rows, similarities = first.lists
        if self.k > first.depth and first.depth < len(first.gallery):
            rows, similarities = prepared.search(first.queries, self.k)
        weights = weigh_by_similarity(similarities[:, : self.k], self.alpha)
        return mix_rows(first.queries, first.gallery, rows[:, : self.k], weights)
