"""Class prototypes: one direction a class, drawn towards its category's where a class has few images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHRINKAGE = 1.0  # images of a class's category that stand beside its own


def build_prototypes(
    embeddings: np.ndarray,
    classes: np.ndarray,
    class_count: int,
    *,
    shrinkage: float = SHRINKAGE,
    categories: Sequence[int] | None = None,
) -> np.ndarray:
    """The directions (C, D) float32 of unit norm of what `average_classes` gives; zeros for a class without images."""
    means = average_classes(embeddings, classes, class_count, shrinkage=shrinkage, categories=categories)
    return scale_to_unit(means)


def average_classes(
    embeddings: np.ndarray,
    classes: np.ndarray,
    class_count: int,
    *,
    shrinkage: float = SHRINKAGE,
    categories: Sequence[int] | None = None,
) -> np.ndarray:
    """The mean embedding of each class, shrunk towards the mean of its category.

    With n images of a class, their mean m, and the mean p of the means of its category's classes, it is
    (n m + shrinkage p) / (n + shrinkage): as if ``shrinkage`` more images lay at p. Means as prototypes are those of
    Snell et al. 2017 (arXiv 1703.05175); the weight of n is that of a normal prior around the category's mean.

    Args:
        embeddings: (M, D) of unit norm.
        classes: (M,) class position of each row; those below 0 are left out.
        class_count: C.
        shrinkage: from 0, in images; 0 for plain means.
        categories: (C,) a number for each class's category; None for one that holds all.

    Returns:
        (C, D) float64, not of unit norm; zeros for a class without images.
    """
    known = classes >= 0
    counts = np.bincount(classes[known], minlength=class_count)
    sums = np.zeros((class_count, embeddings.shape[1]), dtype=np.float64)
    np.add.at(sums, classes[known], np.asarray(embeddings)[known])
    means = sums / np.maximum(counts, 1)[:, None]
    if shrinkage:
        groups = (
            np.zeros(class_count, dtype=np.int64)
            if categories is None
            else np.unique(categories, return_inverse=True)[1]
        )
        seen = counts > 0
        members = np.bincount(groups[seen], minlength=groups.max() + 1)
        parents = np.zeros((len(members), means.shape[1]))
        np.add.at(parents, groups[seen], means[seen])
        parents /= np.maximum(members, 1)[:, None]
        own = counts[:, None].astype(np.float64)
        means = np.where(seen[:, None], (own * means + shrinkage * parents[groups]) / (own + shrinkage), 0.0)
    return means


def scale_to_unit(means: np.ndarray) -> np.ndarray:
    """Directions (C, D) as float32 of unit norm; zeros stay zeros."""
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(means, norms, out=np.zeros_like(means), where=norms > 1e-12)
    return np.asarray(unit, dtype=np.float32)


def compare_prototypes(queries: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Similarity (Q, C) float32 of each query (Q, D) to each prototype; -1 to one of a class without images."""
    similarities: np.ndarray = np.asarray(queries, dtype=np.float32) @ prototypes.T
    similarities[:, ~prototypes.any(axis=1)] = -1.0
    return similarities


def back_off(probabilities: np.ndarray, categories: Sequence[int], share: float) -> np.ndarray:
    """Give each class some of what its category has: where a class is rare, its category speaks for it.

    p'(c) = (1 - share) p(c) + share P(category of c) / (classes of that category); Jelinek and Mercer's interpolation.

    Args:
        probabilities: (Q, C), rows sum to 1.
        categories: (C,) a number for each class's category.
        share: from 0 to 1.

    Returns:
        (Q, C) float32, rows sum to 1.
    """
    groups = np.unique(categories, return_inverse=True)[1]
    sizes = np.bincount(groups)
    totals = np.zeros((len(probabilities), len(sizes)), dtype=np.float32)
    np.add.at(totals.T, groups, np.asarray(probabilities, dtype=np.float32).T)
    mixed: np.ndarray = (1 - share) * probabilities + share * (totals / sizes)[:, groups]
    return np.asarray(mixed, dtype=np.float32)
