"""Class-bridged re-ranking: a gallery row is close if a class leads from the query to it."""

from __future__ import annotations

import numpy as np

from productrec.retrieval.reranking.declared import Reranking
from productrec.retrieval.reranking.engine.candidates import list_owners, take_best_candidates
from productrec.retrieval.reranking.engine.class_shares import (
    JudgedGallery,
    gather_candidates,
    judge_classes,
    judge_gallery,
    keep_best_classes,
    split_queries,
    walk_shared_classes,
)
from productrec.retrieval.reranking.first_search import FirstSearch, NeighbourLists
from productrec.settings.fields import NonNegative, Positive, PositiveFloat, setting


class ClassBridged(Reranking):
    r"""Class-bridged re-ranking, after the fifth place of Google Landmark Retrieval 2021.

    Two images of a product may look nothing alike (front and back, packed and unpacked) and still both be like images
    of its class. With a(q, c) the largest similarity above 0 of query q to a row of class c among its k nearest, for
    its ``classes`` best classes (0 for others), raised by ``bonus`` for the best one; a(g, c) 1 for a gallery row's own
    class, and for a row of unknown class what a(q, c) is for a query, without the bonus:

    .. math::
        B(q, g) &= \max_c \min(a(q, c), a(g, c)) \\
        s^*(q, g) &= \Big(\frac{\max(s, 0)^p + w B^p}{1 + w}\Big)^{1/p}, \text{ and }
            s \, (1 + w)^{-1/p} \text{ where } B = 0

    All rows of a query's best classes are candidates, not only those that were found. The report tells of the least
    over classes of the larger of two distances, five classes, a bonus of 0.5 for the nearest, and a power average; it
    does not tell the penalties on distances nor its weights, so that w and p are this function's own.
    """

    formula = "s* = power mean of s and w max_c min(a(q, c), a(g, c)), a: largest similarity to a row of class c"
    source = "Google Landmark Retrieval 2021, fifth place: bridged distance through labelled images"
    needs_labels = True

    k: Positive = setting(50, "nearest rows that tell a query's classes")
    classes: Positive = setting(5, "best classes of a query, whose rows all become candidates")
    bonus: NonNegative = setting(0.5, "added to the similarity to the best class")
    weight: NonNegative = setting(1.0, "weight of the bridge against the similarity itself; 0 changes nothing")
    power: PositiveFloat = setting(2.0, "of the power mean; a large one listens to the larger of the two")

    def prepare(self, gallery: np.ndarray, labels: np.ndarray | None) -> JudgedGallery:
        """See `Reranking.prepare`."""
        assert labels is not None, "checked by the caller"
        return judge_gallery(gallery, labels, k=self.k, by="nearest")

    def compute(self, first: FirstSearch, prepared: JudgedGallery) -> NeighbourLists:
        """See `Reranking.compute`."""
        return rerank_class_bridged(
            first, prepared, k=self.k, classes=self.classes, bonus=self.bonus, weight=self.weight, power=self.power
        )


def rerank_class_bridged(
    first: FirstSearch, judged: JudgedGallery, *, k: int, classes: int, bonus: float, weight: float, power: float
) -> NeighbourLists:
    """Lists by the s* of `ClassBridged`, as deep as the first search's; it must have labels."""
    known, gallery = judged
    if not known.size or not weight:
        return first.lists
    parts = []
    for part in split_queries(len(first.queries)):
        rows, similarities = (column[part, :k] for column in first.lists)
        wanted = keep_best_classes(judge_classes(rows, similarities, known, by="nearest"), classes)
        candidates = gather_candidates(first, part, wanted, gallery)
        if wanted.nnz:
            owners = list_owners(wanted)
            best = np.lexsort((wanted.indices, -wanted.data, owners))[np.unique(owners, return_index=True)[1]]
            wanted.data[best] += np.float32(bonus)
        bridge = np.zeros(candidates.nnz, dtype=np.float32)
        for of_query, of_row in walk_shared_classes(wanted, gallery, candidates):
            np.maximum(bridge, np.minimum(of_query, of_row), out=bridge)
        candidates.data = _average(candidates.data, bridge, weight=weight, power=power)
        parts.append(take_best_candidates(candidates, first.depth))
    return NeighbourLists(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _average(similarities: np.ndarray, bridge: np.ndarray, *, weight: float, power: float) -> np.ndarray:
    direct = np.clip(similarities, 0.0, None).astype(np.float64)
    mean = ((direct**power + weight * bridge.astype(np.float64) ** power) / (1.0 + weight)) ** (1.0 / power)
    alone = similarities * (1.0 + weight) ** (-1.0 / power)
    return np.asarray(np.where(bridge > 0, mean, alone), dtype=np.float32)
