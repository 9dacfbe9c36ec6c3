"""Iterative neighbourhood blending: embeddings move towards their close neighbours, and search again, in rounds."""

from __future__ import annotations

import numpy as np

from productrec.retrieval.reranking.declared import Expansion
from productrec.retrieval.reranking.engine.mixing import mix_rows
from productrec.retrieval.reranking.expanded import Expanded
from productrec.retrieval.reranking.first_search import FirstSearch
from productrec.settings.fields import Count, Positive, setting


class NeighbourhoodBlending(Expansion):
    r"""Iterative neighbourhood blending, after the winner of Shopee's Price Match Guarantee (2021).

    With s the similarity of an embedding x to gallery row g, x's own row left out by number, and N(x) the rows among
    its k nearest with s above ``threshold``, a round makes of every gallery row and every query

    .. math:: x' = normalise(x + \sum_{g \in N(x)} s \, g)

    The min-2 rule: every product was known to be sold at least twice, so where N(x) is empty the nearest row alone is
    N(x), if its s is above ``least_similarity``. All x' of a round come from the embeddings of the round before; a
    round ends with a new search. The winner blended images and titles together and chose a threshold for each round;
    here there is one embedding and one threshold. Queries blend with gallery rows and never with each other, so an
    answer does not depend on what else is asked.
    """

    formula = "x' = normalise(x + sum of s g over neighbours with s > threshold, or over the nearest alone); in rounds"
    source = "Shopee Price Match Guarantee, 2021, first place: iterative neighborhood blending with min2"

    rounds: Count = setting(2, "times that embeddings are blended and searched again; 0 changes nothing")
    k: Positive = setting(50, "nearest rows that are looked at")
    threshold: float = setting(0.7, "similarity that a neighbour must be above", ge=-1.0, le=1.0)
    least_similarity: float = setting(
        0.5, "similarity that the nearest row must be above to be blended alone; 1 turns this off", ge=-1.0, le=1.0
    )

    def prepare(self, gallery: np.ndarray, labels: np.ndarray | None) -> Expanded:
        """See `Expansion.prepare`; the galleries of all rounds are kept, for the queries to blend with."""
        rounds = [Expanded(gallery)]
        for _ in range(self.rounds):
            rounds.append(Expanded(self._blend(rounds[-1].gallery, rounds[-1], np.arange(len(gallery)))))
        return Expanded(rounds[-1].gallery, rounds[:-1])

    def expand_queries(self, first: FirstSearch, prepared: Expanded) -> np.ndarray:
        """See `Expansion.expand_queries`."""
        queries = first.queries
        for before in prepared.how:
            queries = self._blend(queries, before)
        return queries

    def _blend(self, embeddings: np.ndarray, among: Expanded, own_rows: np.ndarray | None = None) -> np.ndarray:
        """Embeddings (N, D) after a round among a gallery, each without its own row (N,)."""
        from productrec.retrieval.engine import leave_out_own

        rows, similarities = among.search(embeddings, self.k + (own_rows is not None))
        if own_rows is not None:
            rows, similarities = leave_out_own(rows, similarities, own_rows)
        weights = weigh_neighbourhood(similarities, threshold=self.threshold, least_similarity=self.least_similarity)
        return mix_rows(embeddings, among.gallery, rows, weights)


def weigh_neighbourhood(similarities: np.ndarray, *, threshold: float, least_similarity: float) -> np.ndarray:
    """Weights (N, K) of neighbours, nearest first: s above the threshold, or of the nearest alone; never below 0."""
    is_near = similarities > threshold
    if similarities.shape[1]:
        is_near[:, 0] |= similarities[:, 0] > least_similarity  # where one is above the threshold, the nearest is too
    return np.where(is_near, np.clip(similarities, 0.0, None), np.float32(0.0))
