"""The category tree: how severe a mistake is, by how far up two classes meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from productrec.class_order import ClassOrder
from productrec.errors import DataError, describe_offenders


class CategoryTree:
    """Heights of lowest common ancestors of classes, which are the leaves of a tree of categories.

    Source: Bertinetto et al., *Making Better Mistakes*, CVPR 2020. The height of a node is the number of edges to the
    deepest leaf below it: 0 for a class, 1 for a category that holds classes alone.
    """

    def __init__(self, class_ids: Sequence[int], paths: Sequence[str | None]) -> None:
        """Place each class below its path.

        Args:
            class_ids: (C,) unique.
            paths: (C,) categories from the root on, with ``/`` between them; None or empty for a class that hangs
                from the root itself.
        """
        self._order = ClassOrder(class_ids)
        trails = [tuple(part for part in (path or "").split("/") if part) for path in paths]
        depth = max((len(trail) for trail in trails), default=0)
        heights: dict[tuple[str, ...], int] = {}
        for trail in trails:
            for level in range(len(trail) + 1):
                node = trail[:level]
                heights[node] = max(heights.get(node, 0), len(trail) + 1 - level)
        # Column L: the node that a class has at depth L, as a number, and that node's height; -1 below its category.
        numbers = {node: number for number, node in enumerate(heights)}
        self._nodes = np.full((len(trails), depth + 1), -1, dtype=np.int64)
        for row, trail in enumerate(trails):
            self._nodes[row, : len(trail) + 1] = [numbers[trail[:level]] for level in range(len(trail) + 1)]
        self._heights = np.array(list(heights.values()), dtype=np.int64)

    @property
    def is_flat(self) -> bool:
        """Whether no class has a category: then all mistakes are equally severe."""
        return self._nodes.shape[1] == 1

    def compute_severities(self, labels: NDArray[np.integer], predicted: NDArray[np.integer]) -> NDArray[np.int64]:
        """Height of the lowest common ancestor of each pair of classes (N,), 0 where both are one class.

        Raises:
            DataError: a class is not in the tree.
        """
        own, other = self._find(labels), self._find(predicted)
        shared = (self._nodes[own] == self._nodes[other]) & (self._nodes[own] >= 0)
        deepest = shared.sum(axis=1) - 1  # paths part once and stay apart
        heights = self._heights[self._nodes[own, deepest]]
        severities: NDArray[np.int64] = np.where(own == other, 0, heights)
        return severities

    def _find(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        rows = self._order.positions_of(labels)
        unknown = np.unique(np.asarray(labels)[rows < 0])
        if len(unknown):
            raise DataError(
                f"category tree: every class must be in it; {describe_offenders(unknown)} are not. "
                "Take classes and labels from one image table."
            )
        return rows


def compute_mistake_severity(severities: NDArray[np.integer], weights: NDArray[np.float64] | None = None) -> float:
    """Mean severity of the mistakes, those above 0 of (N,); NaN where there is none. ``weights``: (N,)."""
    times = np.ones(len(severities)) if weights is None else weights
    wrong = times * (severities > 0)
    return float(wrong @ severities / wrong.sum()) if wrong.sum() else float("nan")
