"""Class order: which class stands at which position of a head's logits, for training and prediction alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


class ClassOrder:
    """Classes in the order of the logits, known by their ids, or by their keys where they outlive a table.

    ``ids``: (C,) int64 ids, or keys as strings; each stands there once.
    """

    def __init__(self, ids: Sequence[int] | Sequence[str] | NDArray[np.integer]) -> None:
        self.ids = np.asarray(ids, dtype=None if len(ids) else np.int64)
        self._sorter = np.argsort(self.ids, kind="stable")

    @classmethod
    def of_labels(cls, labels: Iterable[int]) -> ClassOrder:
        """The classes of some labels, ascending."""
        return cls(sorted({int(label) for label in labels}))

    def __len__(self) -> int:
        return len(self.ids)

    def list_ids(self) -> list[int]:
        """The ids as plain numbers."""
        return [int(class_id) for class_id in self.ids]

    def positions_of(self, labels: ArrayLike) -> NDArray[np.int64]:
        """Position of each label's class, in the shape of ``labels``; int64, -1 for a class that is not in the order.

        >>> ClassOrder([30, 10]).positions_of([10, 30, 20]).tolist()
        [1, 0, -1]
        """
        labels = np.asarray(labels)
        if not len(self.ids):
            return np.full(labels.shape, -1, dtype=np.int64)
        slots = np.searchsorted(self.ids, labels, sorter=self._sorter).clip(max=len(self.ids) - 1)
        positions = self._sorter[slots]
        return np.where(self.ids[positions] == labels, positions, -1).astype(np.int64)
