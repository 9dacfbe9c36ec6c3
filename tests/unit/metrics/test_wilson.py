"""Wilson's interval against known values and against its definition."""

import math

import pytest

from productrec.metrics.wilson import compute_wilson_interval


@pytest.mark.parametrize(
    ("hits", "count", "expected"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (5, 6, (0.4365, 0.9699)), (81, 263, (0.2553, 0.3662))],
)
def test_known_values(hits, count, expected):
    assert compute_wilson_interval(hits / count, count) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("hits", "count"), [(3, 7), (1, 1), (250, 300), (0, 4)])
def test_the_limits_are_where_the_seen_share_is_1_96_deviations_away(hits, count):
    for limit in compute_wilson_interval(hits / count, count):
        if 0 < limit < 1:
            deviation = math.sqrt(limit * (1 - limit) / count)
            assert abs(hits / count - limit) / deviation == pytest.approx(1.959964, abs=1e-6)
