"""A map of the classes: their mean embeddings laid out in the plane by t-SNE, the same each time."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.manifold import TSNE

LEAST = 4  # classes, below which a map says nothing
_PERPLEXITY = 30.0


def lay_out_classes(means: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Places (C, 2) float32 of classes by t-SNE (van der Maaten and Hinton, JMLR 2008), near ones near each other.

    Distances across the map and the size of clusters mean little; who lies beside whom means something. It starts from
    the two principal components, so that it is the same each time.

    Args:
        means: (C, D) mean embedding of each class, C at least `LEAST`.
        seed: decides what is drawn.
    """
    count = len(means)
    engine = TSNE(
        n_components=2,
        perplexity=min(_PERPLEXITY, (count - 1) / 3),
        init="pca" if means.shape[1] > 1 else "random",
        metric="cosine",
        random_state=seed,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal means have no spread for the principal components
        places: np.ndarray = engine.fit_transform(np.asarray(means, dtype=np.float32))
    return np.asarray(np.nan_to_num(places), dtype=np.float32)
