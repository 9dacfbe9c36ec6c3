"""A map of the classes: their mean embeddings laid out in the plane by t-SNE, the same each time."""

from __future__ import annotations

import numpy as np
from sklearn.manifold import TSNE

LEAST = 4  # classes, below which a map says nothing
_PERPLEXITY = 30.0
_START = 1e-4  # deviation of the places that t-SNE starts from


def lay_out_classes(means: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Places (C, 2) float32 of classes by t-SNE (van der Maaten and Hinton, JMLR 2008), near ones near each other.

    Distances across the map and the size of clusters mean little; who lies beside whom means something. It starts from
    the two principal components, and a little noise, so that equal means do not start at one place: there scikit-learn
    1.9 ends the process.

    Args:
        means: (C, D) finite, mean embedding of each class, C at least `LEAST`.
        seed: decides what is drawn.
    """
    count = len(means)
    centred = np.asarray(means, dtype=np.float64) - np.mean(means, axis=0)
    left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    start = np.zeros((count, 2))
    if strengths[0] > 1e-9:
        start[:, : min(2, len(strengths))] = (left * strengths)[:, :2] / (left[:, 0] * strengths[0]).std() * _START
    start += np.random.default_rng(seed).normal(scale=_START / 10, size=start.shape)
    engine = TSNE(
        n_components=2,
        perplexity=min(_PERPLEXITY, (count - 1) / 3),
        init=start.astype(np.float32),
        metric="cosine",
        random_state=seed,
        n_jobs=1,
    )
    return np.asarray(engine.fit_transform(np.asarray(means, dtype=np.float32)), dtype=np.float32)
