"""Class ids to positions: the column of each label in an order of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def find_positions(labels: ArrayLike, class_ids: ArrayLike) -> NDArray[np.int64]:
    """Position of each label in ``class_ids``, -1 for one that is not among them.

    Args:
        labels: class ids, of any shape.
        class_ids: (C,) unique, at least one, in any order.

    Returns:
        int64, of the labels' shape.
    """
    wanted: NDArray[Any] = np.asarray(labels)
    known: NDArray[Any] = np.asarray(class_ids)
    order = np.argsort(known, kind="stable")
    nearest = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(order) - 1)]
    return np.where(known[nearest] == wanted, nearest, -1).astype(np.int64)
