"""Diversity: how often models disagree, and what each of them brings to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from productrec.metrics.answers import Answers
from productrec.recognition.objective import Objective
from productrec.recognition.rivals import find_rivals


@dataclass(frozen=True)
class Diversity:
    """Of V models on the same images.

    ``disagreement``: (V, V) share of images to which two give another class first; ``alone_right``: (V,) share that one
    alone has right; ``together``: the competition's metric of their equal mean, and ``without``: (V,) of that of all
    others, None where there are none.
    """

    disagreement: np.ndarray
    alone_right: np.ndarray
    together: float
    without: list[float | None]

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """As plain values, by the models' names."""
        return {
            "disagreement": {
                name: dict(zip(names, map(float, row), strict=True))
                for name, row in zip(names, self.disagreement, strict=True)
            },
            "alone_right": dict(zip(names, map(float, self.alone_right), strict=True)),
            "equal_mean": self.together,
            "equal_mean_without": dict(zip(names, self.without, strict=True)),
        }


def compare_models(
    parts: Sequence[np.ndarray], labels: np.ndarray, alone: Sequence[Answers], objective: Objective
) -> Diversity:
    """Compare models on labelled images.

    Args:
        parts: V arrays (N, C) of probabilities.
        labels: (N,) class positions, -1 for none of them.
        alone: what each answers.
        objective: whose competition's metric is told.
    """
    best = np.stack([answers.best for answers in alone])
    right = np.stack([answers.ranks == 0 for answers in alone]) & (labels >= 0)
    count = len(alone)
    rivals, scoring = find_rivals(parts, labels), objective.scoring
    without = [
        scoring.measure(rivals.answer([float(other != one) for other in range(count)])) if count > 1 else None
        for one in range(count)
    ]
    return Diversity(
        (best[:, None] != best[None]).mean(axis=2),
        (right & (right.sum(axis=0) == 1)).mean(axis=1),
        scoring.measure(rivals.answer([1.0] * count)),
        without,
    )
