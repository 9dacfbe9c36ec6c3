"""Clustering: whether k-means finds the classes again among embeddings; the one user of scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

_MOST_STEPS = 20


def cluster_embeddings(embeddings: NDArray[np.float32], clusters: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Cluster (N,) of each embedding by k-means (Lloyd's algorithm, 20 steps at most, one random start).

    Twenty steps from random rows is what the metric-learning benchmarks do (Musgrave et al., ECCV 2020).

    Args:
        embeddings: (N, D), unit rows.
        clusters: how many, at most N.
        seed: decides where it starts.
    """
    engine = KMeans(clusters, init="random", n_init=1, max_iter=_MOST_STEPS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # among equal rows there may be fewer clusters than asked
        found: NDArray[np.int64] = engine.fit(embeddings).labels_.astype(np.int64)
    return found


def compute_clustering(labels: NDArray[np.integer], clusters: NDArray[np.integer]) -> dict[str, float]:
    """Agreement of classes (N,) and clusters (N,).

    Returns:
        ``nmi``, mutual information over the mean of both entropies, and ``ami``, adjusted for chance (Vinh, Epps and
        Bailey, JMLR 2010): 0 for random clusters, which ``nmi`` is not where they are small. Both at most 1, higher
        is better.
    """
    return {
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ami": float(adjusted_mutual_info_score(labels, clusters)),
    }
