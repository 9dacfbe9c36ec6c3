"""Pseudo-labels: the surest of predicted classes, to be trained on as if they were known (Lee 2013)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from productrec.errors import DataError
from productrec.recognition.probabilities import ClassProbabilities

_BLOCK_ROWS = 4096


def choose_pseudo_labels(probabilities: ClassProbabilities, *, least: float, known: Collection[int]) -> dict[str, int]:
    """Class ids by image id, of the images that are sure enough; none whose image cannot be read.

    Args:
        probabilities: of images without a label.
        least: top probability from which an image counts as sure, in [0, 1].
        known: class ids that are trained on; no other is given.

    Raises:
        DataError: no image is sure enough.
    """
    unread, trained = set(probabilities.fallback), set(known)
    chosen: dict[str, int] = {}
    most = 0.0
    for start in range(0, len(probabilities.ids), _BLOCK_ROWS):
        values = np.asarray(probabilities.values[start : start + _BLOCK_ROWS], dtype=np.float32)
        tops, best = values.max(axis=1), values.argmax(axis=1)
        ids = probabilities.ids[start : start + _BLOCK_ROWS]
        for image_id, top, position in zip(ids, tops.tolist(), best.tolist(), strict=True):
            class_id = probabilities.class_ids[position]
            if image_id in unread or class_id not in trained:
                continue
            most = max(most, top)
            if top >= least:
                chosen[image_id] = class_id
    if not chosen:
        raise DataError(
            f"{probabilities.folder}: at least one image must have a top probability of {least:g}; the highest is "
            f"{most:.2f}. Lower train.pseudo_confidence."
        )
    return chosen
