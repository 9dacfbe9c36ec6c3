"""Calibration curves: bins counted out one by one, and errors that are known."""

import json

import numpy as np
import pytest

from productrec.errors import DataError
from productrec.metrics.calibration import build_reliability, compute_reliability
from productrec.metrics.wilson import compute_wilson_interval


def test_bins_and_error_are_those_counted_out():
    generator = np.random.default_rng(0)
    confidence, is_right = generator.integers(0, 8, 103) / 7, generator.random(103) < 0.6
    made = compute_reliability(confidence, is_right, bins=10)
    order = sorted(range(103), key=lambda row: (confidence[row], row))
    assert [one.count for one in made.bins] == [11, 11, 11, *[10] * 7]
    error, start = 0.0, 0
    for one in made.bins:
        rows = order[start : start + one.count]
        start += one.count
        mean = sum(confidence[row] for row in rows) / len(rows)
        right = sum(bool(is_right[row]) for row in rows) / len(rows)
        assert (one.confidence, one.accuracy) == pytest.approx((mean, right))
        assert (one.low, one.high) == compute_wilson_interval(one.accuracy, one.count)
        error += len(rows) / 103 * abs(mean - right)
    assert made.error == pytest.approx(error)
    assert (made.confidence, made.accuracy) == pytest.approx((confidence.mean(), is_right.mean()))
    assert build_reliability(json.loads(json.dumps(made.describe()))) == made


def test_the_error_is_what_confidence_is_off_by():
    generator = np.random.default_rng(1)
    true = generator.uniform(0.1, 0.8, 50_000)
    is_right = generator.random(50_000) < true
    assert compute_reliability(true, is_right).error < 0.01
    assert compute_reliability(true + 0.2, is_right).error == pytest.approx(0.2, abs=0.01)
    assert compute_reliability(np.ones(4), np.array([True, False, False, False]), bins=1).error == 0.75


def test_what_is_no_confidence_is_refused():
    with pytest.raises(DataError, match="at least one answer"):
        compute_reliability(np.empty(0), np.empty(0, bool))
    with pytest.raises(DataError, match="at least one answer"):
        compute_reliability(np.ones(3), np.ones(2, bool))
    with pytest.raises(DataError, match=r"must be in \[0, 1\]; got 0.0 to 7.0"):
        compute_reliability(np.array([0.0, 7.0]), np.ones(2, bool))
    assert len(compute_reliability(np.array([0.5, 0.6]), np.ones(2, bool)).bins) == 2
