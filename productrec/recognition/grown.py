"""Grown classes: what head and neighbours say together, where neighbours know classes that the head never saw."""

from __future__ import annotations

import numpy as np

from productrec.recognition.fusion import Evidence, Fusion, compute_parts
from productrec.recognition.vote import compute_softmax, compute_vote, normalise_rows


def fuse_grown(evidence: Evidence, fusion: Fusion, *, grown_count: int, is_removed: np.ndarray) -> np.ndarray:
    """Probabilities of the head's classes and of those that were grown since.

    The vote is taken over all classes. A grown class keeps its share of the vote, since the head has nothing to say of
    it; what is left is shared out among the head's classes as the fusion of head and vote says:
    ``p(grown) = vote``, ``p(known) = (1 - sum of grown votes) * (w * head + (1 - w) * vote within the known)``.
    With no vote for a grown class this is the fusion itself. A class that was taken out has probability 0.

    Args:
        evidence: of Q queries; its classes are positions among the C of the head, then the grown ones.
        fusion: as fitted without the grown classes.
        grown_count: E, classes that the head does not know.
        is_removed: (C,) bool, classes of the head that were taken out.

    Returns:
        (Q, C + E) float32; rows sum to 1 within rounding, or to 0 where every class of the head was taken out and no
        grown class has a vote.
    """
    if not grown_count and not is_removed.any():
        return compute_parts(evidence, fusion).fused
    class_count = evidence.logits.shape[1]
    vote = compute_vote(
        evidence.classes, evidence.similarities, class_count + grown_count, k=fusion.k, power=fusion.power
    )
    near = evidence.similarities[:, : fusion.k] > 0
    nobody = ~(near & (evidence.classes[:, : fusion.k] >= 0)).any(axis=1)
    vote[nobody] = 0.0
    stays = (~is_removed).astype(np.float32)
    head = _share(compute_softmax(evidence.logits) * stays, stays)
    known = _share(vote[:, :class_count] * stays, stays)
    grown = vote[:, class_count:]
    left = 1.0 - grown.sum(axis=1, keepdims=True)
    fused = left * (fusion.head_weight * head + (1 - fusion.head_weight) * known)
    return np.concatenate([fused, grown], axis=1).astype(np.float32)


def _share(values: np.ndarray, stays: np.ndarray) -> np.ndarray:
    """Rows brought to sum 1 over the classes that stay; uniform over these where a row has nothing."""
    shares: np.ndarray = normalise_rows(values) * stays
    return normalise_rows(shares) * stays if stays.any() else shares
