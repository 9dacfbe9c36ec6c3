"""The vote: each nearest neighbour speaks for its class, the louder the more similar it is."""

import numpy as np


def compute_vote(
    classes: np.ndarray, similarities: np.ndarray, class_count: int, *, k: int, power: float
) -> np.ndarray:
    """Share of each class in the vote of the ``k`` nearest: its neighbours' sum of similarity to ``power``.

    Args:
        classes: (Q, K) class position of each neighbour, nearest first; -1 where its class is not among them.
        similarities: (Q, K), descending; a negative similarity has no vote.
        class_count: C.
        k: neighbours that vote, at most K are there.
        power: 0 counts heads, a large one listens to the nearest.

    Returns:
        (Q, C) float32, each row sums to 1; uniform where nobody votes.
    """
    classes, similarities = classes[:, :k], similarities[:, :k]
    # Relative to the nearest, so that a high power does not underflow; shares do not change.
    nearest = np.maximum(similarities[:, :1], 1e-12)
    weights = (np.clip(similarities, 0.0, None) / nearest).astype(np.float64) ** power
    weights[(similarities <= 0) | (classes < 0)] = 0.0
    queries = len(classes)
    cells = np.arange(queries)[:, None] * class_count + np.maximum(classes, 0)
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=queries * class_count).reshape(queries, class_count)
    return normalise_rows(votes)


def compute_nearest(classes: np.ndarray, similarities: np.ndarray, class_count: int) -> np.ndarray:
    """Share of each class by its single nearest neighbour: classes are ranked by their largest similarity.

    Arguments as for `compute_vote`; a class without a neighbour among the K gets nothing.

    Returns:
        (Q, C) float32, each row sums to 1.
    """
    best = np.zeros((len(classes), class_count))
    queries = np.broadcast_to(np.arange(len(classes))[:, None], classes.shape)
    known = classes >= 0
    np.maximum.at(best, (queries[known], classes[known]), np.clip(similarities[known], 0.0, None))
    return normalise_rows(best)


def compute_softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (N, C), in float32."""
    shifted = logits.astype(np.float32)
    shifted -= shifted.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def normalise_rows(values: np.ndarray) -> np.ndarray:
    """Rows brought to sum 1, in float32; a row of zeros becomes uniform."""
    sums = values.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(sums > 0, values / sums, 1.0 / values.shape[1])
    return np.asarray(shares, dtype=np.float32)
