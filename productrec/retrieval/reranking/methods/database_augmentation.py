"""Database augmentation: each gallery row becomes the mean of itself and its nearest gallery rows."""

from __future__ import annotations

from typing import Literal

import numpy as np

from productrec.errors import ArtifactError
from productrec.retrieval.reranking.declared import Expansion
from productrec.retrieval.reranking.engine.mixing import mix_rows, weigh_by_similarity
from productrec.retrieval.reranking.engine.own_class import search_own_class
from productrec.retrieval.reranking.expanded import Expanded
from productrec.retrieval.reranking.first_search import FirstSearch
from productrec.settings.fields import Count, NonNegative, setting

Weights = Literal["similarity", "rank"]


class DatabaseAugmentation(Expansion):
    """Database augmentation (Turcot and Lowe, ICCV workshops 2009; Arandjelovic and Zisserman, CVPR 2012).

    A gallery row becomes the direction of itself, with weight 1, and its k nearest other rows; it is left out of its
    own neighbours by its number, so that a copy of it counts. Weights are max(s, 0)^alpha, or by rank r = 1..k, as the
    winners' reports of Google Landmark Retrieval have it, (k - r) / k: the row itself would be rank 0, and the k-th has
    none. With ``same_class`` the k nearest rows of a row's own class count alone, and a row without a class (a negative
    label) stays as it is. Queries stay as they are; `alpha_query_expansion` may follow.
    """

    formula = "g' = normalise(g + sum_r w_r g_r), w_r = max(s_r, 0)^alpha or (k - r) / k; search again"
    source = "Turcot, Lowe, 2009; Arandjelovic, Zisserman, CVPR 2012; ranks: Google Landmark Retrieval reports"

    k: Count = setting(3, "other gallery rows that are mixed into a gallery row")
    weights: Weights = setting("similarity", "similarity: a neighbour weighs s^alpha; rank: (k - rank) / k")
    alpha: NonNegative = setting(3.0, "power of similarities, where these are the weights")
    same_class: bool = setting(False, "whether rows of the same class count alone")

    def check_labels(self, labels: np.ndarray | None) -> None:
        """See `Reranking.check_labels`; labels are asked for where rows of the same class count alone."""
        if self.same_class and labels is None:
            raise ArtifactError(
                "database_augmentation: the gallery's rows must have labels where same_class is on; got none. "
                "Pass labels, or turn it off."
            )

    def prepare(self, gallery: np.ndarray, labels: np.ndarray | None) -> Expanded:
        """See `Expansion.prepare`."""
        own = labels if self.same_class else None
        return Expanded(augment_gallery(gallery, k=self.k, weights=self.weights, alpha=self.alpha, labels=own))

    def expand_queries(self, first: FirstSearch, prepared: Expanded) -> np.ndarray:
        """See `Expansion.expand_queries`; they stay as they are."""
        return first.queries


def augment_gallery(
    gallery: np.ndarray, *, k: int, weights: Weights, alpha: float, labels: np.ndarray | None = None
) -> np.ndarray:
    """Gallery (M, D) float32, unit rows, each mixed with its ``k`` nearest others (all there are, if fewer).

    Args:
        gallery: (M, D) float32, unit rows.
        k: neighbours of each row; 0 changes nothing.
        weights: ``similarity`` or ``rank``.
        alpha: power of similarities; ranks take none.
        labels: (M,) classes where only rows of the same class count, negative where unknown; None for all rows.
    """
    if not k:
        return gallery
    if labels is None:
        from productrec.retrieval.engine import search_rows

        rows, similarities = search_rows(gallery, gallery, k, own_rows=np.arange(len(gallery)))
    else:
        rows, similarities = search_own_class(gallery, labels, k)
    if weights == "rank":
        ranks = np.arange(1, rows.shape[1] + 1)
        mixing = np.where(np.isfinite(similarities), (k - ranks) / k, 0.0)
    else:
        mixing = weigh_by_similarity(similarities, alpha)
    return mix_rows(gallery, gallery, rows, mixing)
