import math

import numpy as np
import pytest

from productrec.errors import DataError
from productrec.metrics.category_tree import CategoryTree, compute_mistake_severity
from productrec.metrics.intervals import compute_intervals
from productrec.metrics.retrieval import compute_retrieval


def mean_of(values):
    return lambda times: {"mean": float(times @ values / times.sum())}


def test_a_seed_decides_the_draws():
    values = np.arange(50.0)
    first = compute_intervals(mean_of(values), 50, draws=100, seed=3)
    assert compute_intervals(mean_of(values), 50, draws=100, seed=3) == first
    assert compute_intervals(mean_of(values), 50, draws=100, seed=4) != first


def test_intervals_hold_the_true_share_as_often_as_they_say():
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        values = (generator.random(150) < 0.7).astype(float)
        low, high = compute_intervals(mean_of(values), 150, draws=200, seed=trial)["mean"]
        held += low <= 0.7 <= high
    assert 0.89 <= held / 200 <= 0.99
    low, high = compute_intervals(mean_of(values), 150, draws=2000, seed=0)["mean"]
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.7 * 0.3 / 150), rel=0.15)


def test_a_query_that_counts_twice_is_a_query_that_stands_twice():
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((60, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = generator.integers(0, 8, 60)
    times = generator.integers(0, 3, 20)
    found = compute_retrieval(rows[:20], labels[:20], rows[20:], labels[20:])
    twice = np.repeat(np.arange(20), times)
    expected = compute_retrieval(rows[twice], labels[twice], rows[20:], labels[20:]).measure()
    figures = found.measure(times.astype(float))
    assert {name: figures[name] for name in expected if name != "gap"} == pytest.approx(
        {name: value for name, value in expected.items() if name != "gap"}
    )
    assert figures["gap"] == pytest.approx(expected["gap"], abs=0.05)  # see the docs: repeats share one precision


def test_figures_that_cannot_be_told_are_left_out_of_the_interval():
    low, high = compute_intervals(lambda times: {"x": math.nan if times[0] else 1.0}, 2, draws=50)["x"]
    assert (low, high) == (1.0, 1.0)
    assert math.isnan(compute_intervals(lambda times: {"x": math.nan}, 2, draws=5)["x"][0])
    for bad in ({"draws": 0}, {"level": 1.0}):
        with pytest.raises(DataError, match="intervals:"):
            compute_intervals(mean_of(np.ones(3)), 3, **bad)


def test_the_severity_of_a_mistake_is_the_height_at_which_two_classes_meet():
    tree = CategoryTree([7, 3, 5, 9], ["food/drinks", "food/drinks", "food/bread", None])
    labels = np.array([7, 7, 7, 7])
    severities = tree.compute_severities(labels, np.array([7, 3, 5, 9]))
    assert severities.tolist() == [0, 1, 2, 3]
    assert compute_mistake_severity(severities) == 2.0
    assert compute_mistake_severity(severities, np.array([1.0, 1, 3, 0])) == 1.75
    assert math.isnan(compute_mistake_severity(severities[:1]))
    assert not tree.is_flat and CategoryTree([1, 2], [None, ""]).is_flat
    # A category below whose deepest leaf is further down is higher, whatever the length of the own path.
    uneven = CategoryTree([1, 2, 3], ["a", "a", "a/b/c"])
    assert uneven.compute_severities(np.array([1]), np.array([2])).tolist() == [3]
    with pytest.raises(DataError, match="every class must be in it; 1 \\(4\\)"):
        tree.compute_severities(labels, np.array([4, 4, 4, 4]))
