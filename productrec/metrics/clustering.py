"""Clustering: whether k-means finds the classes again among embeddings; the one user of scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import mutual_info_score

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
        assigned: NDArray[np.int64] = engine.fit(embeddings).labels_.astype(np.int64)
    return assigned


def compute_clustering(labels: NDArray[np.integer], clusters: NDArray[np.integer]) -> dict[str, float]:
    """Agreement of classes (N,) and clusters (N,).

    Returns:
        ``nmi``, mutual information over the mean of both entropies, and ``ami``, adjusted for chance (Vinh, Epps and
        Bailey, JMLR 2010): 0 for random clusters, which ``nmi`` is not where they are small. Both at most 1, higher
        is better.
    """
    sizes, others = (np.unique(which, return_counts=True)[1] for which in (labels, clusters))
    entropy = (_compute_entropy(sizes) + _compute_entropy(others)) / 2
    information = float(mutual_info_score(labels, clusters))
    if len(sizes) == len(others) and len(sizes) in (1, len(labels)):
        return {"nmi": 1.0, "ami": 1.0}  # nothing is divided, or everything: they agree
    by_chance = _compute_expected_information(sizes, others)
    ami = (information - by_chance) / max(entropy - by_chance, float(np.finfo(np.float64).eps))
    return {"nmi": information / entropy if entropy else 0.0, "ami": ami}


def _compute_entropy(sizes: NDArray[np.integer]) -> float:
    shares = sizes / sizes.sum()
    return float(-(shares * np.log(shares)).sum())


def _compute_expected_information(sizes: NDArray[np.integer], others: NDArray[np.integer]) -> float:
    """Mutual information of random clusterings of these sizes (Vinh et al., equation 24a).

    By hand, since it depends on sizes alone: scikit-learn goes through every class and cluster, which takes minutes
    with 10,000 of each, where a few dozen sizes are different.
    """
    count = int(sizes.sum())
    total = 0.0
    for a, times_a in zip(*np.unique(sizes, return_counts=True), strict=True):
        for b, times_b in zip(*np.unique(others, return_counts=True), strict=True):
            shared = np.arange(max(1, a + b - count), min(a, b) + 1)
            logarithm = (
                gammaln([a + 1, b + 1, count - a + 1, count - b + 1]).sum()
                - gammaln(count + 1)
                - gammaln([shared + 1, a - shared + 1, b - shared + 1, count - a - b + shared + 1]).sum(axis=0)
            )
            information = shared / count * np.log(count * shared / (float(a) * float(b)))
            total += float(times_a * times_b * (information * np.exp(logarithm)).sum())
    return total
