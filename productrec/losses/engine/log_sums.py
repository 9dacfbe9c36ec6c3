"""Sums of exponentials over the rows of a block, and what exponentials of similarities have in common."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_LOG2_E, _LN_2 = math.log2(math.e), math.log(2)


class LogSum(NamedTuple):
    """``values``: (b,), logarithms of sums of exponentials; their derivative by each exponent is shares / totals.

    ``shares``: (b, K), in the place of the exponents; ``totals``: (b, 1), from about 1 upwards, and not 0 for an empty
    sum. They stay apart because a pass over (b, K) costs, and a factor of a row does not.
    """

    values: Tensor
    shares: Tensor
    totals: Tensor


def compute_log_one_plus_sum(similarities: Tensor, rate: float, base: float) -> LogSum:
    """Log of 1 plus the sum of exp(rate (s - base)) over each row of (b, K), in place."""
    rate2 = rate * _LOG2_E  # powers of 2: exp is up to a hundred times slower for what underflows
    extremes = similarities.amax(dim=1, keepdim=True) if rate > 0 else similarities.amin(dim=1, keepdim=True)
    peaks = extremes.mul_(rate2).sub_(base * rate2).clamp_(min=0)
    shares = _scale_and_shift(similarities, rate2, -(peaks + base * rate2)).exp2_()
    totals = shares.sum(dim=1, keepdim=True).add_(peaks.neg().exp2_())
    return LogSum(totals.log2().add_(peaks).mul_(_LN_2)[:, 0], shares, totals)


def compute_log_sum(similarities: Tensor, rate: float = 1.0) -> LogSum:
    """Log of the sum of exp(rate s) over each row of (b, K), in place; -inf over nothing."""
    rate2 = rate * _LOG2_E
    extremes = similarities.amax(dim=1, keepdim=True) if rate > 0 else similarities.amin(dim=1, keepdim=True)
    peaks = extremes.mul_(rate2).clamp_(min=torch.finfo(similarities.dtype).min / 4)
    shares = _scale_and_shift(similarities, rate2, -peaks).exp2_()
    totals = shares.sum(dim=1, keepdim=True)
    values = totals.log2().add_(peaks).mul_(_LN_2)[:, 0]
    return LogSum(values, shares, totals.clamp_(min=0.5))


def _scale_and_shift(similarities: Tensor, rate: float, shifts: Tensor) -> Tensor:
    """``rate`` times (b, K) plus a shift a row (b, 1), in place and in one pass."""
    return torch.add(shifts, similarities, alpha=rate, out=similarities)
