"""Label-aware re-ranking: gallery rows of the classes that a query's neighbours vote for move up."""

from __future__ import annotations

import numpy as np

from productrec.retrieval.reranking.declared import Reranking
from productrec.retrieval.reranking.engine.candidates import take_best_candidates
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
from productrec.settings.fields import NonNegative, Positive, setting


class LabelAware(Reranking):
    r"""Label-aware re-ranking, after the winners of Google Landmark Retrieval 2019 and the second place of 2021.

    Both give a query the classes of its nearest labelled images, each scored by the sum of their similarities, and move
    gallery rows of these classes up; the winners of 2019 (Yokoo et al., CVPR workshops 2020) also insert rows of the
    class that the search had not found. With P(q, c) the share of class c in the sum of max(s, 0)^power over the k
    nearest rows, kept for the ``classes`` best; P(g, c) 1 for a gallery row's own class, and for a row of unknown class
    the shares of its own nearest rows:

    .. math:: s^*(q, g) = s(q, g) + w \sum_c P(q, c) \, P(g, c)

    All rows of the kept classes are candidates. A weight of 2 or more puts every row of a class with a share of 1
    before all others, as sorting by predicted label does; a small one settles near ties.
    """

    formula = "s* = s + w sum_c P(q, c) P(g, c), P: share of class c in the vote of the k nearest"
    source = "Yokoo, Ozaki, Simo-Serra, Iizuka, CVPR workshops 2020; Google Landmark Retrieval 2021, second place"
    needs_labels = True

    k: Positive = setting(10, "nearest rows that vote for a query's classes")
    power: NonNegative = setting(3.0, "power of similarities in the vote; a large one listens to the nearest")
    classes: Positive = setting(5, "best classes of a query, whose rows all become candidates")
    weight: NonNegative = setting(0.5, "added to the similarity of a row whose class has every vote; 0 changes nothing")

    def prepare(self, gallery: np.ndarray, labels: np.ndarray | None) -> JudgedGallery:
        """See `Reranking.prepare`."""
        assert labels is not None, "checked by the caller"
        return judge_gallery(gallery, labels, k=self.k, by="vote", power=self.power)

    def compute(self, first: FirstSearch, prepared: JudgedGallery) -> NeighbourLists:
        """See `Reranking.compute`."""
        return rerank_label_aware(first, prepared, k=self.k, power=self.power, classes=self.classes, weight=self.weight)


def rerank_label_aware(
    first: FirstSearch, judged: JudgedGallery, *, k: int, power: float, classes: int, weight: float
) -> NeighbourLists:
    """Lists by the s* of `LabelAware`, as deep as the first search's; it must have labels."""
    known, gallery = judged
    if not known.size or not weight:
        return first.lists
    parts = []
    for part in split_queries(len(first.queries)):
        rows, similarities = (column[part, :k] for column in first.lists)
        wanted = keep_best_classes(judge_classes(rows, similarities, known, by="vote", power=power), classes)
        candidates = gather_candidates(first, part, wanted, gallery)
        bonus = np.zeros(candidates.nnz, dtype=np.float32)
        for of_query, of_row in walk_shared_classes(wanted, gallery, candidates):
            bonus += of_query * of_row
        candidates.data += np.float32(weight) * bonus
        parts.append(take_best_candidates(candidates, first.depth))
    return NeighbourLists(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
