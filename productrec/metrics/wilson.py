"""Wilson's interval: how far a share that was seen on some images may be from that of all such images."""

from __future__ import annotations

import math

_Z = 1.959964  # of a normal distribution, 95 % within


def compute_wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson (1927), which stays in [0, 1] and is right for few images too.

    Args:
        share: of ``count`` images, in [0, 1].
        count: at least 1.

    Returns:
        Lower and upper limit.

    Example:
        >>> [round(limit, 3) for limit in compute_wilson_interval(5 / 6, 6)]
        [0.437, 0.97]
    """
    square = _Z**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    reach = _Z / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)
