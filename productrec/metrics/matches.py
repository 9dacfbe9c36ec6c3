"""F1 of lists of matches: how well the images that are listed for an image are those of its class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from productrec.metrics.competition import MetricKind

# What a contract may name beside `competition.METRICS`, which judge class answers.
MATCH_METRICS = {
    "matches_f1": MetricKind(
        "F1 of matches",
        "F1: the harmonic mean of precision and recall of each image's list, averaged over the images",
        "Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, section 8.3, one query an image",
    ),
}
RETRIEVAL_METRICS = {
    "recall_at_k": MetricKind(
        "Recall@{k}",
        "Recall@{k}: the share of images with another of their class among the first {k} neighbours",
        "Jégou et al., PAMI 2011; Song et al., CVPR 2016",
        has_k=True,
    ),
}


class MatchLists(NamedTuple):
    """For each of N images the rows of a pool that are taken for its class: ``rows[starts[i] : starts[i + 1]]``.

    ``starts``: (N + 1,) int64; ``rows``: (P,) int64, each image's own first, then the most similar first.
    """

    starts: np.ndarray
    rows: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """(N,) how many each list holds."""
        return np.diff(self.starts)


def score_matches(lists: MatchLists, labels: np.ndarray, *, weight: float = 1.0) -> np.ndarray:
    """F1 of each image's list, 2 TP / (listed + true), its own row among both.

    Args:
        lists: of all M images of a pool, in its order.
        labels: (M,) classes.
        weight: how often each listed image of another class counts: 2 where the pool stands for one of twice as many.

    Returns:
        (M,) float64 in [0, 1].
    """
    owners = np.repeat(np.arange(len(labels)), lists.counts)
    is_hit = labels[lists.rows] == labels[owners]
    hits = np.bincount(owners[is_hit], minlength=len(labels))
    wrong = lists.counts - hits
    f1: np.ndarray = 2 * hits / (hits + weight * wrong + count_group_sizes(labels))
    return f1


def count_group_sizes(labels: np.ndarray) -> np.ndarray:
    """(M,) how many images of a pool are of each image's class, itself among them."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sizes: np.ndarray = counts[codes]
    return sizes
