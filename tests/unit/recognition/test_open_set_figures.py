"""Open-set figures: true accepts counted out for every threshold, and shares that too few queries cannot tell."""

import numpy as np
import pytest

from productrec.metrics.answers import Answers
from productrec.recognition.classifier import Classifier
from productrec.recognition.open_set import OpenSetAnswers, answer_in_turn
from productrec.recognition.open_set_figures import measure_open_set, tell_open_set
from tests.unit.recognition.test_open_set import draw


def build(known, right, unknown, queries=None):
    """Answers of these scores, to known queries that are right or not, and to unknown ones."""
    scores = np.concatenate([known, unknown])
    labels = np.append(np.zeros(len(known), np.int64), np.full(len(unknown), -1))
    ranks = np.append(np.where(right, 0, 1), np.full(len(unknown), 2))
    answers = Answers(labels, ranks, labels, scores, scores)
    return OpenSetAnswers({"confidence": scores}, answers, np.arange(len(scores)) if queries is None else queries)


def count_out(known, right, unknown, share):
    """The most known queries named right by any threshold that lets in no more of the unknown."""
    tried = [*known.tolist(), *unknown.tolist(), 2.0]
    fits = [one for one in tried if (unknown >= one).mean() <= share]
    return max(float(((known >= one) & right).mean()) for one in fits)


@pytest.mark.parametrize("seed", range(4))
def test_true_accepts_are_those_of_the_best_threshold_that_is_allowed(seed):
    generator = np.random.default_rng(seed)
    known, right = generator.integers(20, 100, 700) / 100, generator.random(700) < 0.8  # with ties
    unknown = generator.integers(0, 95, 3000) / 100
    made = measure_open_set(build(known, right, unknown), "confidence", draws=30)
    for share in (0.01, 0.001):
        assert made.true_accepts[share] == pytest.approx(count_out(known, right, unknown, share))
        low, high = made.intervals[share]
        assert low <= made.true_accepts[share] <= high
    assert (made.known, made.unknown) == (700, 3000)


def test_what_too_few_unknown_queries_cannot_tell_is_not_told():
    known, right = np.linspace(0, 1, 50), np.ones(50, bool)
    for count, told in ((299, []), (300, [0.01]), (2999, [0.01]), (3000, [0.01, 0.001])):
        made = measure_open_set(build(known, right, np.linspace(0, 0.9, count)), "confidence", draws=5)
        assert [share for share, value in made.true_accepts.items() if value is not None] == told
        assert list(made.intervals) == told
    few = measure_open_set(build(known, right, np.linspace(0, 0.9, 299)), "confidence", draws=5)
    words = tell_open_set(few.describe())
    assert "at 1 % false accepts not measurable (299 unknown queries, 300 needed)" in words
    assert "at 0.1 % false accepts not measurable (299 unknown queries, 3,000 needed)" in words


def test_a_query_that_is_unknown_in_every_turn_counts_once():
    known, right, unknown = np.linspace(0, 1, 50), np.ones(50, bool), np.tile(np.linspace(0, 0.9, 100), 5)
    turns = np.append(np.arange(50), 50 + np.tile(np.arange(100), 5))
    made = measure_open_set(build(known, right, unknown, turns), "confidence", draws=5)
    assert made.unknown == 100 and made.true_accepts[0.01] is None


def test_a_query_is_drawn_with_all_its_turns():
    """Four known queries in a thousand turns each tell no more than four do."""
    known, right = np.full(4000, 0.9), np.tile([True, True, False, False], 1000)
    unknown = np.full(3000, 0.1)
    turns = np.append(np.tile(np.arange(4), 1000), 4 + np.arange(3000))
    low, high = measure_open_set(build(known, right, unknown, turns), "confidence", draws=200).intervals[0.01]
    narrow = measure_open_set(build(known, right, unknown), "confidence", draws=200).intervals[0.01]
    assert high - low > 0.5 > 10 * (narrow[1] - narrow[0]) / 2


def test_the_curve_is_kept_from_end_to_end():
    evidence, labels = draw()
    seen = answer_in_turn(evidence, labels, Classifier())
    made = measure_open_set(seen, "similarity", draws=0)
    rows = made.list_curve()
    assert len(rows) == 500 and made.intervals == {}
    thresholds, true, false = (np.array(column) for column in zip(*rows, strict=True))
    assert (np.diff(thresholds) < 0).all() and (np.diff(true) >= 0).all() and (np.diff(false) >= 0).all()
    assert false[-1] == 1 and true[-1] == pytest.approx(seen.is_right[~seen.is_unknown].mean())
