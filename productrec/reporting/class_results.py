"""Results by class: how many of its images are named right, and which other class it is taken for most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from productrec.metrics.wilson import compute_wilson_interval
from productrec.reporting.answered import Answered


@dataclass(frozen=True)
class ClassResult:
    """A class's ``images`` and those of them that are ``right``; ``low`` and ``high``: 95 % interval of their share.

    ``taken_for``: the class id that its mistaken images are named most, ``times`` so many; None without a mistake.
    ``confidence``: mean probability of what ranks first.
    """

    class_id: int
    images: int
    right: int
    low: float
    high: float
    confidence: float
    taken_for: int | None
    times: int

    @property
    def accuracy(self) -> float:
        """Share of the images that is named right."""
        return self.right / self.images


def list_class_results(answered: Answered) -> list[ClassResult]:
    """A result for each class with a labelled image, the hardest first.

    They stand in the order of the upper end of the interval of their accuracy, so that a class of one mistaken image
    does not stand before one of twenty.
    """
    rows = np.flatnonzero(answered.is_labelled)
    order = rows[np.argsort(answered.labels[rows], kind="stable")]
    classes, starts = np.unique(answered.labels[order], return_index=True)
    right = answered.is_right
    found = []
    for class_id, own in zip(classes.tolist(), np.split(order, starts[1:]), strict=True):
        count, hits = len(own), int(right[own].sum())
        others, times = np.unique(answered.best[own][~right[own]], return_counts=True)
        most = int(times.argmax()) if len(times) else None
        found.append(
            ClassResult(
                int(class_id),
                count,
                hits,
                *compute_wilson_interval(hits / count, count),
                float(answered.confidence[own].mean()),
                None if most is None else int(others[most]),
                0 if most is None else int(times[most]),
            )
        )
    return sorted(found, key=lambda result: (result.high, result.low, result.class_id))


def pick_easiest(results: list[ClassResult], most: int) -> list[ClassResult]:
    """Up to ``most`` of the easiest classes, by the lower end of their interval, then by confidence, descending."""
    return sorted(results, key=lambda result: (-result.low, -result.confidence, result.class_id))[:most]
