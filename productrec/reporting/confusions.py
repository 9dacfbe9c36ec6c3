"""Confused pairs of classes: how often images of the one are named the other, both ways, the most confused first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from productrec.reporting.answered import Answered


@dataclass(frozen=True)
class Confusion:
    """Two classes that are taken for each other.

    ``one`` and ``other``: class ids, the one whose images are mistaken more often first; ``one_as_other`` and
    ``other_as_one``: how many images were; ``images_of_one`` and ``images_of_other``: images with these labels;
    ``rows``: (M,) of the mistaken images among the answers, the surest first.
    """

    one: int
    other: int
    one_as_other: int
    other_as_one: int
    images_of_one: int
    images_of_other: int
    rows: np.ndarray

    @property
    def mistakes(self) -> int:
        """Images that were mistaken, both ways."""
        return self.one_as_other + self.other_as_one


def find_confusions(answered: Answered, *, most: int) -> list[Confusion]:
    """Up to ``most`` pairs of classes, by the number of images that were mistaken, descending; then by class id."""
    wrong = np.flatnonzero(answered.is_wrong)
    labels, best = answered.labels[wrong], answered.best[wrong]
    pairs = np.stack([np.minimum(labels, best), np.maximum(labels, best)], axis=1)
    listed, places, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    places = places.reshape(-1)
    sizes = dict(zip(*np.unique(answered.labels[answered.is_labelled], return_counts=True), strict=True))
    found = []
    for number in np.argsort(-counts, kind="stable")[:most].tolist():
        rows = wrong[places == number]
        one, other = (int(class_id) for class_id in listed[number])
        forth = int((answered.labels[rows] == one).sum())
        back = len(rows) - forth
        if back > forth:
            one, other, forth, back = other, one, back, forth
        rows = rows[np.argsort(-answered.confidence[rows], kind="stable")]
        found.append(Confusion(one, other, forth, back, int(sizes.get(one, 0)), int(sizes.get(other, 0)), rows))
    return found
