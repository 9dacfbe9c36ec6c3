"""Twin classes: two names whose images lie among each other as if they were of one product."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEAST_MIXING = 0.75  # siblings that a trained network can hardly tell apart were at 0.5 to 0.7 where it was seen


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
    labels, neighbours = labels[known], neighbours[known]
    sizes = np.bincount(labels, minlength=class_count)
    queries = np.repeat(labels, neighbours.shape[1])
    found = neighbours.ravel()
    real = found >= 0
    pairs, counts = np.unique(queries[real].astype(np.int64) * class_count + found[real], return_counts=True)
    count_of = dict(zip(pairs.tolist(), counts.tolist(), strict=True))
    twins = []
    for pair in pairs.tolist():
        one, other = divmod(pair, class_count)
        if one >= other and (other * class_count + one) in count_of:
            continue  # told from the other side, or a class itself
        if one == other:
            continue
        ratios, crossed = [], []
        for first, second in ((one, other), (other, one)):
            across = count_of.get(first * class_count + second, 0)
            seen = across + count_of.get(first * class_count + first, 0)
            crossed.append(across / seen if seen else 0.0)
            expected = sizes[second] / max(1, sizes[first] + sizes[second] - 1)
            ratios.append(crossed[-1] / expected if expected else 0.0)
        mixing = min(1.0, float(np.mean(ratios)))
        if mixing >= least:
            twins.append(Twins(min(one, other), max(one, other), mixing, float(np.mean(crossed))))
    return sorted(twins, key=lambda pair: (-pair.mixing, pair.one, pair.other))
