"""Suspects: images whose label their neighbours and the head do not believe, the least believed first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from productrec.errors import DataError
from productrec.recognition.classifier import Classifier, Evidence, compute_parts

JUDGE = Classifier(weights={"head": 0.5, "vote": 0.5})  # neighbours vote as they are, without those who are judged
_BLOCK_ROWS = 4096


class Judged(NamedTuple):
    """What is thought of the labels of N images.

    ``doubt`` (N,) float32, from 0, the label is certain, to 1, another is; above 0.5 another class is believed more.
    ``suggested`` (N,) int64 class positions, the most believed class; ``agreement`` (N,) float32, the given label's
    share in the vote of the neighbours; ``margin`` (N,) float32, the head's probability of the given label less that
    of the best other class.
    """

    doubt: np.ndarray
    suggested: np.ndarray
    agreement: np.ndarray
    margin: np.ndarray


def judge_labels(evidence: Evidence, labels: np.ndarray, classifier: Classifier) -> Judged:
    """Hold the label of every image against its neighbours and against the head.

    With p, the fused probabilities, doubt is half of one plus the best other class's p less the label's: the
    normalised margin of confident learning (Northcutt et al., JAIR 2021, section 3.2), here over a vote and a head.

    Args:
        evidence: of N images, whose neighbours must not be the images themselves.
        labels: (N,) class positions as they are given.
        classifier: how vote and head are weighed.

    Raises:
        DataError: not one label an image, or a label that is no class position.
    """
    count, class_count = evidence.logits.shape
    if labels.shape != (count,) or (count and not 0 <= labels.min() <= labels.max() < class_count):
        raise DataError(
            f"audit: labels must be one position from 0 to {class_count - 1} for each of {count} images; "
            f"got shape {labels.shape}."
        )
    judged = Judged(
        np.empty(count, np.float32), np.empty(count, np.int64), np.empty(count, np.float32), np.empty(count, np.float32)
    )
    for start in range(0, count, _BLOCK_ROWS):
        block = slice(start, min(start + _BLOCK_ROWS, count))
        parts = compute_parts(evidence.take(block), classifier)
        given = labels[block]
        judged.doubt[block] = 0.5 - _compute_margin(parts.fused, given) / 2
        judged.suggested[block] = parts.fused.argmax(axis=1)
        judged.agreement[block] = parts.vote[np.arange(len(given)), given]
        judged.margin[block] = _compute_margin(parts.head, given)
    return judged


def _compute_margin(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability (N,) of each row's label less that of the best other class; of one class alone it is that."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = 0.0
    return np.asarray(probabilities[rows, labels] - others.max(axis=1), dtype=np.float32)
