"""Twin classes: two names whose images lie among each other as if they were of one product."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEAST_MIXING = 0.75  # siblings that a trained network can hardly tell apart were at 0.5 to 0.7 where it was seen

_ROWS_AT_A_TIME = 65_536


class Twins(NamedTuple):
    """Two classes, by position, and how far they are mixed: 0, apart; 1, as a chance parting of one class would be.

    ``cross``: share of the neighbours, among those of the two classes, that are of the other one.
    """

    one: int
    other: int
    mixing: float
    cross: float


def find_twins(
    labels: np.ndarray, neighbours: np.ndarray, class_count: int, *, least: float = LEAST_MIXING
) -> list[Twins]:
    """Pairs of classes that are mixed at least so far, the most mixed first.

    Of the neighbours of two classes' images that are of either, the share of the other class is held against what a
    chance parting of them would have: with n and m images an image of the first has m / (n + m - 1) of the other. The
    mean of both ratios is the statistic of the nearest-neighbour test of two samples (Schilling 1986; Henze 1988) as a
    share.

    Args:
        labels: (N,) class positions of N images; those below 0 are left out.
        neighbours: (N, K) class position of each image's neighbours, without itself; -1 for none.
        class_count: C.
        least: mixing from which a pair is told.
    """
    known = labels >= 0
    labels, neighbours = labels[known].astype(np.int64), neighbours[known]
    sizes = np.bincount(labels, minlength=class_count)
    pairs, counts = _count_pairs(labels, neighbours, class_count)
    queries, found = np.divmod(pairs, class_count)
    of_own = np.zeros(class_count, dtype=np.int64)
    of_own[queries[queries == found]] = counts[queries == found]
    across = queries != found
    both = np.unique(np.stack([np.minimum(queries, found), np.maximum(queries, found)])[:, across], axis=1)
    ratios, crossed = [], []
    for first, second in ((both[0], both[1]), (both[1], both[0])):
        seen_across = _look_up(pairs, counts, first * class_count + second)
        crossed.append(seen_across / np.maximum(1, seen_across + of_own[first]))
        expected = sizes[second] / np.maximum(1, sizes[first] + sizes[second] - 1)
        ratios.append(np.divide(crossed[-1], expected, out=np.zeros_like(expected), where=expected > 0))
    mixing, cross = np.minimum(1.0, np.mean(ratios, axis=0)), np.mean(crossed, axis=0)
    kept = np.flatnonzero(mixing >= least)
    kept = kept[np.lexsort((both[1][kept], both[0][kept], -mixing[kept]))]
    columns = (both[0], both[1], mixing, cross)
    return [Twins(*values) for values in zip(*(column[kept].tolist() for column in columns), strict=True)]


def _count_pairs(labels: np.ndarray, neighbours: np.ndarray, class_count: int) -> tuple[np.ndarray, np.ndarray]:
    """How often a class (first) sees another (second) among its images' neighbours, by ``first * C + second``."""
    parts = []
    for start in range(0, len(labels), _ROWS_AT_A_TIME):
        near = neighbours[start : start + _ROWS_AT_A_TIME]
        pairs = labels[start : start + _ROWS_AT_A_TIME, None] * class_count + near
        parts.append(np.unique(pairs[near >= 0], return_counts=True))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    every, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    pairs, places = np.unique(every, return_inverse=True)
    return pairs, np.bincount(places, counts, minlength=len(pairs)).astype(np.int64)


def _look_up(pairs: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The counts of some pairs, 0 of those that were not seen; ``pairs`` ascending."""
    if not len(pairs):
        return np.zeros(len(wanted), np.int64)
    places = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    found: np.ndarray = np.where(pairs[places] == wanted, counts[places], 0)
    return found
