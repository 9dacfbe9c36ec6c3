"""Euclidean distances between unit vectors by their similarities: the distance of a pair is the root of 2 - 2 s."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_distances(similarities: Tensor) -> Tensor:
    """Distances of (b, K) similarities, for formulas that torch differentiates: slope 0 where two coincide to rounding.

    An absent positive has distance 0, an absent negative an infinite one.
    """
    squared = 2.0 - 2.0 * similarities
    apart = squared > _find_least(squared)
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def measure_distances(similarities: Tensor) -> Tensor:
    """The same distances of (b, K) similarities, without a graph.

    By thresholds: on a CPU a comparison and a choice cost several times as much.
    """
    squared = torch.rsub(similarities, 2.0, alpha=2.0)
    return torch.threshold_(squared, _find_least(squared), 0.0).sqrt_()


def measure_slopes(similarities: Tensor) -> Tensor:
    """How fast a distance falls as (b, K) similarities rise, 1 / d, in their place; 0 where it is 0 or infinite."""
    squared = similarities.mul_(-2.0).add_(2.0)
    return torch.threshold_(squared, _find_least(squared), torch.inf).rsqrt_()


def _find_least(squared: Tensor) -> float:
    """Squared distances up to this are rounding."""
    return 16.0 * torch.finfo(squared.dtype).eps
