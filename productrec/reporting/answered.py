"""What was answered to every image of a split: the class that ranks first, how surely, and the label's rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from productrec.class_order import ClassOrder
from productrec.metrics.answers import NO_ANSWERS, Answers, join, summarise

_BLOCK_ROWS = 4096
_TITLES = {"val": "validation images", "test": "test images", "train": "training images, each out of fold,"}


@dataclass(frozen=True)
class Answered:
    """Answers to the N images of a split.

    ``ids``: (N,) image ids; ``labels``: (N,) true class ids, of those images that ``is_labelled`` (N,) says have one;
    ``best``: (N,) class id that ranks first; ``answers``: to all of them, by position among the C classes.
    """

    split: str
    ids: list[str]
    labels: np.ndarray
    is_labelled: np.ndarray
    best: np.ndarray
    answers: Answers

    @property
    def title(self) -> str:
        """What a person calls the split's images."""
        return _TITLES.get(self.split, f"{self.split} images")

    @property
    def confidence(self) -> np.ndarray:
        """(N,) probability of the class that ranks first."""
        return self.answers.confidence

    @property
    def ranks(self) -> np.ndarray:
        """(N,) how many classes rank before the label; C where that is none of the C classes, or there is none."""
        return self.answers.ranks

    def take(self, rows: np.ndarray) -> Answered:
        """Those to some images."""
        ids = [self.ids[row] for row in rows.tolist()]
        labels, is_labelled, best = (column[rows] for column in (self.labels, self.is_labelled, self.best))
        return Answered(self.split, ids, labels, is_labelled, best, self.answers.take(rows))

    @property
    def is_right(self) -> np.ndarray:
        """(N,) whether each image has a label that ranks first."""
        return np.asarray(self.is_labelled & (self.ranks == 0))

    @property
    def is_wrong(self) -> np.ndarray:
        """(N,) whether each image has a label that does not rank first."""
        return np.asarray(self.is_labelled & (self.ranks > 0))


def summarise_answers(
    split: str,
    ids: Sequence[str],
    labels: np.ndarray,
    is_labelled: np.ndarray,
    class_ids: Sequence[int],
    probabilities: np.ndarray,
) -> Answered:
    """The answers that class probabilities (N, C) give, block by block: all of them may fill the memory.

    Args:
        split: whose images they are.
        ids: (N,) of the images.
        labels: (N,) class ids; of an image without a label any number.
        is_labelled: (N,) bool.
        class_ids: (C,) of the columns.
        probabilities: (N, C), finite.
    """
    order = np.asarray(class_ids, dtype=np.int64)
    positions = np.where(is_labelled, ClassOrder(order).positions_of(labels), -1)
    parts: list[Answers] = [
        summarise(np.asarray(probabilities[start : start + _BLOCK_ROWS]), positions[start : start + _BLOCK_ROWS])
        for start in range(0, len(ids), _BLOCK_ROWS)
    ]
    answers = join(parts) if parts else NO_ANSWERS
    return Answered(split, list(ids), labels, is_labelled, order[answers.best], answers)
