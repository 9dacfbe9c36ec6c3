"""Two models on the same queries, against counts and sums by hand."""

import math

import numpy as np
import pytest

from productrec.errors import DataError
from productrec.metrics.answers import Answers, summarise
from productrec.metrics.competition import CompetitionMetric
from productrec.metrics.paired import compare_answers, find_right

TOP_3 = CompetitionMetric("top_k_error", 3)


def answer(right: list[bool], classes: int = 5, seed: int = 0) -> Answers:
    """Answers to queries of class 0: class 0 is the surest where it is right, else the last but one."""
    values = np.full((len(right), classes), 0.1)
    values[:, 0] = np.where(right, 0.6, 0.05)
    values[:, 1] = np.where(right, 0.1, 0.55)
    return summarise(values, np.zeros(len(right), dtype=np.int64))


def test_counts_and_chance_are_those_of_mcnemars_exact_test() -> None:
    first = answer([True] * 6 + [True] * 2 + [False] * 9 + [False] * 3)
    second = answer([True] * 6 + [False] * 2 + [True] * 9 + [False] * 3)
    paired = compare_answers(first, second, metric=TOP_3, draws=200)
    assert (paired.both, paired.only_first, paired.only_second, paired.neither) == (6, 2, 9, 3)
    assert paired.count == 20
    assert paired.chance == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)


def test_differences_are_of_the_second_less_the_first_with_the_interval_of_the_paired_difference() -> None:
    right = np.random.default_rng(1).random((2, 300)) < [[0.6], [0.75]]
    paired = compare_answers(*(answer(one.tolist()) for one in right), metric=TOP_3, draws=2000)
    top_1, top_3 = paired.figures
    assert (top_1.key, top_3.key) == ("top_1_accuracy", "top_3_error")
    assert top_1.difference == pytest.approx(right[1].mean() - right[0].mean())
    moved = right[1].astype(float) - right[0]
    spread = 1.96 * moved.std() / math.sqrt(300)
    assert (top_1.low, top_1.high) == pytest.approx((moved.mean() - spread, moved.mean() + spread), abs=0.01)
    assert top_3.lower_is_better and not top_1.lower_is_better


def test_a_model_is_no_better_than_itself() -> None:
    same = answer([True, False, True])
    paired = compare_answers(same, same, metric=CompetitionMetric("top_1_accuracy"), draws=50)
    (only,) = paired.figures
    assert (only.difference, only.low, only.high) == (0, 0, 0)
    assert paired.chance == 1.0


def test_a_class_that_nobody_could_name_is_never_right() -> None:
    unknown = summarise(np.array([[0.9, 0.1]]), np.array([-1]))
    assert not find_right(unknown).any()


def test_answers_to_other_queries_are_refused() -> None:
    with pytest.raises(DataError, match="must be to the same queries"):
        compare_answers(answer([True]), answer([True, False]), metric=TOP_3)
    with pytest.raises(DataError, match="at least one"):
        compare_answers(answer([]), answer([]), metric=TOP_3)
