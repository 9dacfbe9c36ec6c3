"""How often each class is to be expected: probabilities corrected from the training images' shares to others.

Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities, Neural
Computation 14(1), 2002: the correction is their equation 2.4, the estimate their equation 2.9.
"""

from __future__ import annotations

import numpy as np

from productrec.recognition.vote import normalise_rows

_LEAST_RATIO = 1e-9  # a class of no share is all but ruled out; with none above 0 a row could not sum to 1
_LEAST_IMAGES = 0.5  # that a class without training images counts as


def share_out(counts: np.ndarray) -> np.ndarray:
    """Share (C,) float64 of each class, from its number of images (C,); one without any counts as half an image."""
    least = np.maximum(np.asarray(counts, dtype=np.float64), _LEAST_IMAGES)
    shares: np.ndarray = least / least.sum()
    return shares


def correct_prior(probabilities: np.ndarray, ratios: np.ndarray, strength: float) -> np.ndarray:
    """Correct to other shares of classes: p'(c|x) is proportional to p(c|x) ratio(c)^strength.

    Args:
        probabilities: (N, C), rows sum to 1.
        ratios: (C,) the wanted share of each class by its share in training, from 0.
        strength: from 0, where nothing changes, to 1, the correction of the source.

    Returns:
        (N, C) float32, rows sum to 1.
    """
    if not strength:
        return np.asarray(probabilities, dtype=np.float32)
    return normalise_rows(probabilities * _raise(ratios, strength))


def _raise(ratios: np.ndarray, strength: float) -> np.ndarray:
    factors = np.maximum(ratios, _LEAST_RATIO) ** strength
    raised: np.ndarray = (factors / factors.max()).astype(np.float32)
    return raised


def estimate_shares(
    values: np.ndarray,
    trained: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    pull: float = 20.0,
    block_rows: int = 4096,
    rounds: int = 100,
    tolerance: float = 1e-3,
) -> np.ndarray:
    """Shares of classes among images without labels, from their probabilities, by EM.

    A departure from the source: ``pull`` images of each class, on average, stand at the shares of training, without
    which a class that few images show runs to none. With 0 it is the source's. With 20 it did no harm where a class had
    ten images, with 1 it did (docs/predicting.md).

    Args:
        values: (N, C) rows sum to 1, as a classifier gives them where classes have the shares ``trained``.
        trained: (C,) shares, above 0.
        weights: (N,) how often each image counts; None for once each.
        pull: images a class, from 0.
        block_rows: rows that are held at a time.
        rounds: at most so many passes over ``values``.
        tolerance: it ends where a round moves less of all images than this.

    Returns:
        (C,) float64 that sum to 1.
    """
    counted = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    shares = np.asarray(trained, dtype=np.float64)
    if counted.sum() <= 0:
        return shares
    for _ in range(rounds):
        seen = pull * len(trained) * trained
        for start in range(0, len(values), block_rows):
            block = slice(start, start + block_rows)
            seen = seen + counted[block] @ correct_prior(values[block], shares / trained, 1.0)
        before, shares = shares, seen / seen.sum()
        if np.abs(shares - before).sum() / 2 < tolerance:
            break
    return shares


def weigh_images(labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights of labelled images by which their classes have other shares: wanted(c) by the share among them.

    Args:
        labels: (N,) class positions; -1 for a class that nobody could name, which keeps its own share.
        wanted: (C,) shares.

    Returns:
        (N,) float64 of mean 1; zeros where no image is of a wanted class.
    """
    known = labels >= 0
    weights = np.zeros(len(labels))
    weights[known] = wanted[labels[known]] / np.bincount(labels[known], minlength=len(wanted))[labels[known]]
    total = weights.sum()
    if total > 0:
        weights *= known.sum() / total
        weights[~known] = 1.0
    return weights
