"""What is asked of embeddings of classes that were never seen: retrieval of every image among all others, clusters."""

from __future__ import annotations

import numpy as np

from productrec.metrics.clustering import cluster_embeddings, compute_clustering
from productrec.metrics.retrieval import compute_retrieval
from sections.kept_rows import FIGURES


def measure_unseen(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Recall@1, 2, 4 and 8, MAP@R and NMI of embeddings (N, D), unit rows, with labels (N,): shares in [0, 1]."""
    figures = compute_retrieval(embeddings, labels, cutoffs=(1, 2, 4, 8)).measure()
    clusters = cluster_embeddings(embeddings, len(np.unique(labels)))
    figures |= compute_clustering(labels, clusters)
    return {name: figures[name] for name in FIGURES}
