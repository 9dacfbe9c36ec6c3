"""Intervals of figures by bootstrap over queries: how far a figure would move had other queries been drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from productrec.errors import DataError


def compute_intervals(
    measure: Callable[[NDArray[np.float64]], Mapping[str, float]],
    count: int,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13).

    The queries are drawn again with replacement, ``draws`` times; each query counts as often as it was drawn. The
    gallery stays as it is, and queries count as independent of each other: where a class has many, its images vary
    together, and the interval is narrower than one over classes would be.

    Args:
        measure: figures of the queries, given how often each counts (N,); a figure that cannot be told is NaN.
        count: N, at least 1.
        draws: how often they are drawn, at least 1.
        seed: decides every draw.
        level: share of the draws inside the interval, between 0 and 1.

    Returns:
        Low and high end of each figure.

    Raises:
        DataError: a setting out of range.
    """
    if count < 1 or draws < 1 or not 0 < level < 1:
        raise DataError(
            f"intervals: queries and draws must be at least 1 and level between 0 and 1; got {count}, {draws} and "
            f"{level}. 1000 draws at 0.95 are usual."
        )
    generator = np.random.default_rng(seed)
    seen: dict[str, list[float]] = {}
    for _ in range(draws):
        times = np.bincount(generator.integers(0, count, count), minlength=count).astype(np.float64)
        for name, value in measure(times).items():
            seen.setdefault(name, []).append(value)
    tail = (1 - level) / 2
    return {name: _cut_tails(np.array(values), tail) for name, values in seen.items()}


def _cut_tails(values: NDArray[np.float64], tail: float) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, (tail, 1 - tail))
    return float(low), float(high)
