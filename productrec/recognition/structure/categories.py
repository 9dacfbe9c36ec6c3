"""A class is as believable as its category: what is likely in sum lifts the classes that it is the sum of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from productrec.recognition.vote import normalise_rows


def lift_categories(probabilities: np.ndarray, categories: Sequence[int], strength: float) -> np.ndarray:
    """Draw classes to what their category has in sum: p'(c) is proportional to p(c) P(category of c)^strength.

    Within a category all ratios stay. `prototypes.back_off` is another thing: it makes the classes of a category alike.

    Args:
        probabilities: (N, C), rows sum to 1.
        categories: (C,) a number for each class's category.
        strength: from 0, where nothing changes.

    Returns:
        (N, C) float32, rows sum to 1.
    """
    if not strength:
        return np.asarray(probabilities, dtype=np.float32)
    numbers = np.unique(categories, return_inverse=True)[1]
    order = np.argsort(numbers, kind="stable")
    starts = np.append(0, np.flatnonzero(np.diff(numbers[order])) + 1)
    totals = np.add.reduceat(np.asarray(probabilities, dtype=np.float32)[:, order], starts, axis=1)
    return normalise_rows(probabilities * (totals ** np.float32(strength))[:, numbers])
