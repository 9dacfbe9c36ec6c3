"""F1 of lists of matches, against sets written from its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from productrec.metrics.matches import MatchLists, count_group_sizes, score_matches

SEEDS = st.integers(0, 2**32 - 1)


def draw_lists(generator: np.random.Generator, count: int) -> list[list[int]]:
    lists = []
    for own in range(count):
        others = [int(row) for row in generator.permutation(count) if row != own]
        lists.append([own, *others[: generator.integers(0, count)]])
    return lists


def pack(lists: list[list[int]]) -> MatchLists:
    starts = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    return MatchLists(starts, np.array([row for one in lists for row in one], dtype=np.int64))


def f1_by_sets(listed: set[int], true: set[int]) -> float:
    hits = len(listed & true)
    precision, recall = hits / len(listed), hits / len(true)
    return 0.0 if not hits else 2 * precision * recall / (precision + recall)


@given(SEEDS, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_f1_is_that_of_sets(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, count)
    lists = draw_lists(generator, count)
    wanted = [f1_by_sets(set(lists[i]), set(np.flatnonzero(labels == labels[i]).tolist())) for i in range(count)]
    assert score_matches(pack(lists), labels) == pytest.approx(np.array(wanted), abs=1e-12)


def test_a_wrong_image_counts_as_often_as_it_is_said_to() -> None:
    labels = np.array([5, 5, 7, 7])
    lists = pack([[0, 1, 2], [1], [2, 3], [3, 0]])
    assert score_matches(lists, labels, weight=3.0) == pytest.approx([4 / 7, 2 / 3, 1.0, 2 / 6])
    assert count_group_sizes(labels).tolist() == [2, 2, 2, 2]


def test_the_whole_group_is_perfect_and_the_image_alone_is_not() -> None:
    labels = np.array([1, 1, 1, 2])
    perfect = pack([[0, 1, 2], [1, 0, 2], [2, 0, 1], [3]])
    alone = pack([[0], [1], [2], [3]])
    assert score_matches(perfect, labels).tolist() == [1.0, 1.0, 1.0, 1.0]
    assert score_matches(alone, labels) == pytest.approx([0.5, 0.5, 0.5, 1.0])
