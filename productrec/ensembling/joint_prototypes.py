"""Prototypes of several models together: those of the concatenated embeddings, or the product of each model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from productrec.ensembling.concatenation import join_parts
from productrec.ensembling.joint_search import JointRule, join_similarities
from productrec.recognition.prototypes import average_classes, compare_prototypes, scale_to_unit


class JointPrototypes:
    """What V models' embeddings of a gallery say of each class, for any weights of the models."""

    def __init__(
        self,
        embeddings: Sequence[np.ndarray],
        classes: np.ndarray,
        class_count: int,
        *,
        categories: Sequence[int] | None = None,
    ) -> None:
        """Average each class; arguments as for `average_classes`, ``embeddings`` being V arrays (M, D_m)."""
        self._means = [average_classes(rows, classes, class_count, categories=categories) for rows in embeddings]

    def build(self, shares: np.ndarray) -> np.ndarray:
        """(C, sum of D_m) float32: the prototypes of embeddings that were concatenated with some shares (V,)."""
        return scale_to_unit(np.concatenate([np.sqrt(w) * m for w, m in zip(shares, self._means, strict=True)], axis=1))

    def compare(self, queries: Sequence[np.ndarray], shares: np.ndarray, rule: JointRule) -> np.ndarray:
        """Similarity (Q, C) float32 to each class's prototype; -1 to one of a class without images.

        Args:
            queries: V arrays (Q, D_m) of unit norm.
            shares: (V,) that sum to 1.
            rule: ``concat``: to the concatenated embeddings' own; ``product``: of similarities to each model's own.
        """
        if rule == "concat":
            return compare_prototypes(join_parts(queries, shares), self.build(shares))
        near = [compare_prototypes(own, scale_to_unit(m)) for own, m in zip(queries, self._means, strict=True)]
        joint = join_similarities(near, shares, rule)
        joint[:, ~self._means[0].any(axis=1)] = -1.0
        return joint
