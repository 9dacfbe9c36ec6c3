"""Answers of weighted means by rivals alone are those of the whole mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from productrec.metrics.answers import summarise
from productrec.recognition import rivals as module
from productrec.recognition.rivals import find_rivals
from productrec.recognition.weights import combine


def draw(seed, members=4, queries=40, classes=12):
    """Opinions on a grid, so that a mean has ties, and labels of which some nobody could name."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 5, (members, queries, classes)).astype(np.float32) + 1
    labels = generator.integers(-1, classes, queries)
    return [part / part.sum(axis=1, keepdims=True) for part in counts], labels, generator


@given(st.integers(0, 300), st.integers(1, 15))
def test_they_answer_as_the_whole_mean_does(seed, block):
    parts, labels, generator = draw(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ROWS", block)
        found = find_rivals(parts, labels)
    weights = generator.dirichlet(np.ones(len(parts)))
    weights[generator.random(len(parts)) < 0.3] = 0.0
    if not weights.any():
        weights[0] = 1.0
    told = found.answer(weights)
    # Sums in another order may round a tie apart: compare with that mean to the bit.
    whole = combine(parts, [float(np.float32(one)) for one in weights / weights.sum()], "linear")
    expected = summarise(whole, labels)
    away = np.abs(whole - whole[np.arange(len(labels)), np.maximum(labels, 0)][:, None])
    clear = (np.sort(away, axis=1)[:, 1] > 1e-6) & (labels >= 0)
    np.testing.assert_array_equal(told.ranks[clear], expected.ranks[clear])
    np.testing.assert_array_equal(told.ranks[labels < 0], 12)
    np.testing.assert_allclose(told.confidence, expected.confidence, atol=1e-6)
    np.testing.assert_allclose(told.log_loss, expected.log_loss, atol=1e-5)
    first = np.sort(whole, axis=1)[:, ::-1]
    alone = first[:, 0] - first[:, 1] > 1e-6
    np.testing.assert_array_equal(told.best[alone], expected.best[alone])


def test_a_tie_goes_to_the_class_that_stands_first():
    parts = [np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], np.float32)]
    answers = find_rivals(parts, np.array([0, 1])).answer([1.0])
    assert answers.ranks.tolist() == [0, 1] and answers.best.tolist() == [0, 0]


def test_what_no_opinion_ranks_before_the_true_class_is_left_out():
    part = np.full((3, 50), 0.01, np.float32)
    part[:, 7] = 0.5
    found = find_rivals([part, part], np.array([7, 7, 3]))
    assert found.rows.tolist().count(0) == 0 and found.rows.tolist().count(2) == 49
