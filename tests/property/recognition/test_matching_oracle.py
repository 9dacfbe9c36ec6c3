"""Lists of matches and their fitted threshold, against loops and every threshold tried by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from productrec.metrics.matches import MatchLists, count_group_sizes, score_matches
from productrec.recognition.matching import MatchRule, Neighbourhood, fit_threshold, list_matches

SEEDS = st.integers(0, 2**32 - 1)


def draw_pool(generator: np.random.Generator, count: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric similarities (M, M) in float32 and labels (M,)."""
    values = generator.random((count, count))
    if ties:
        values = np.round(values * 4) / 4
    return np.maximum(values, values.T).astype(np.float32), generator.integers(0, 3, count)


def find_near(similarities: np.ndarray, depth: int) -> Neighbourhood:
    count = len(similarities)
    order = [
        sorted((j for j in range(count) if j != i), key=lambda j: -similarities[i, j])[:depth] for i in range(count)
    ]
    rows = np.array(order, dtype=np.int64).reshape(count, -1)
    return Neighbourhood(rows, np.take_along_axis(similarities, rows, 1))


def list_by_loops(similarities: np.ndarray, rule: MatchRule) -> list[list[int]]:
    count = len(similarities)
    lists = []
    for own in range(count):
        others = sorted((j for j in range(count) if j != own), key=lambda j: -similarities[own, j])
        near = [j for j in others if float(similarities[own, j]) >= rule.threshold]
        lists.append(others[: min(max(len(near), rule.at_least - 1), rule.most - 1)])
    if rule.both_ways:
        before = [set(one) for one in lists]
        for own in range(count):
            joined = before[own] | {j for j in range(count) if own in before[j]}
            lists[own] = sorted(joined, key=lambda j: (-similarities[own, j], j))[: rule.most - 1]
    return [[own, *one] for own, one in enumerate(lists)]


def unpack(lists: MatchLists) -> list[list[int]]:
    return [lists.rows[start:end].tolist() for start, end in zip(lists.starts[:-1], lists.starts[1:], strict=True)]


@given(SEEDS, st.integers(2, 9), st.integers(1, 2), st.booleans(), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_lists_are_those_of_loops(seed: int, count: int, at_least: int, both_ways: bool, most: int) -> None:
    similarities, _ = draw_pool(np.random.default_rng(seed), count, ties=False)
    rule = MatchRule(0.6, at_least=at_least, both_ways=both_ways, most=most)
    assert unpack(list_matches(find_near(similarities, most - 1), rule)) == list_by_loops(similarities, rule)


@given(SEEDS, st.integers(2, 9), st.integers(1, 2), st.booleans(), st.integers(1, 9), st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=150, deadline=None)
def test_the_threshold_is_the_best_of_all(
    seed: int, count: int, at_least: int, ties: bool, most: int, weight: float
) -> None:
    similarities, labels = draw_pool(np.random.default_rng(seed), count, ties=ties)
    near = find_near(similarities, count - 1)
    is_match = labels[near.rows] == labels[:, None]
    sizes = count_group_sizes(labels)

    def judge(threshold: float) -> float:
        rule = MatchRule(threshold, at_least=at_least, most=most)
        return float(score_matches(list_matches(near, rule), labels, weight=weight).mean())

    fitted = fit_threshold(near.similarities, is_match, sizes, at_least=at_least, most=most, weight=weight)
    every = [judge(threshold) for threshold in [*np.unique(similarities).astype(np.float64).tolist(), 2.0]]
    assert fitted.f1 == pytest.approx(max(every), abs=1e-9)
    assert judge(fitted.threshold) == pytest.approx(fitted.f1, abs=1e-9)


def test_neighbouring_floats_are_told_apart() -> None:
    high = np.float32(0.7)
    low = np.nextafter(high, np.float32(0))  # halfway between them lies no float32
    near = Neighbourhood(np.array([[1, 2], [0, 2], [0, 1]]), np.array([[high, low]] * 3))
    labels = np.array([0, 0, 1])
    is_match = labels[near.rows] == labels[:, None]
    fitted = fit_threshold(near.similarities[:2], is_match[:2], np.array([2, 2]))
    assert float(low) < fitted.threshold < float(high)
    assert unpack(list_matches(near, MatchRule(fitted.threshold)))[:2] == [[0, 1], [1, 0]]
