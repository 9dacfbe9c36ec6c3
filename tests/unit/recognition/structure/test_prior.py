"""The prior: a correction to other shares of classes, and their estimate, where the truth is known."""

import numpy as np
import pytest

from productrec.recognition.structure.prior import (
    correct_prior,
    estimate_shares,
    share_out,
    weigh_images,
)

TRAINED = np.array([0.7, 0.2, 0.1])
WANTED = np.array([0.1, 0.3, 0.6])


def draw(shares, count=4000, seed=0, told=TRAINED):
    """Labels by some shares, and what the best classifier says to one number of each where shares are ``told``."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, count, p=shares)
    seen = generator.normal(1.2 * labels, 1.0)
    joint = told * np.exp(-0.5 * (seen[:, None] - 1.2 * np.arange(3)) ** 2)
    return labels, (joint / joint.sum(axis=1, keepdims=True)).astype(np.float32)


def test_the_correction_is_the_best_classifier_of_the_other_shares():
    labels, values = draw(WANTED)
    corrected = correct_prior(values, WANTED / TRAINED, 1.0)
    np.testing.assert_allclose(corrected, draw(WANTED, told=WANTED)[1], atol=1e-5)
    before, after = ((table.argmax(axis=1) == labels).mean() for table in (values, corrected))
    assert after > before + 0.1
    np.testing.assert_array_equal(correct_prior(values, WANTED / TRAINED, 0.0), values)


def test_a_class_of_no_share_is_ruled_out_and_rows_stay_whole():
    values = np.array([[0.9, 0.1, 0.0], [1.0, 0.0, 0.0]], np.float32)
    corrected = correct_prior(values, np.array([0.0, 1.0, 1.0]), 1.0)
    np.testing.assert_allclose(corrected, [[0, 1, 0], [1, 0, 0]], atol=1e-6)


def test_estimated_shares_are_those_that_were_drawn_whatever_the_block():
    labels, values = draw(WANTED)
    shares = estimate_shares(values, TRAINED, pull=0.0, tolerance=1e-6, rounds=500)
    np.testing.assert_allclose(shares, np.bincount(labels) / len(labels), atol=0.03)
    assert np.abs(values.mean(axis=0) - WANTED).max() > 0.1  # what is said on average is far off
    again = estimate_shares(values, TRAINED, pull=0.0, tolerance=1e-6, rounds=500, block_rows=33)
    np.testing.assert_allclose(shares, again, atol=1e-6)


def test_weighed_images_count_as_often_in_the_estimate_as_they_are_said_to():
    labels, values = draw(TRAINED)
    weights = weigh_images(labels, WANTED)
    shares = estimate_shares(values, TRAINED, weights=weights, pull=0.0, tolerance=1e-6, rounds=500)
    np.testing.assert_allclose(shares, WANTED, atol=0.06)
    np.testing.assert_array_equal(estimate_shares(values, TRAINED, weights=np.zeros(len(values))), TRAINED)


def test_few_images_do_not_run_away_from_the_shares_of_training():
    values = np.array([[0.6, 0.3, 0.1]], np.float32)
    alone = estimate_shares(values, TRAINED, pull=0.0, tolerance=0.0, rounds=1000)
    pulled = estimate_shares(values, TRAINED, tolerance=0.0, rounds=1000)
    assert alone.max() > 0.99
    assert np.abs(pulled - TRAINED).max() < 0.2


def test_weights_bring_labelled_images_to_the_wanted_shares():
    labels = np.array([0, 0, 0, 1, -1])
    weights = weigh_images(labels, np.array([0.5, 0.5, 0.0]))
    assert weights[:3].sum() == pytest.approx(weights[3]) == pytest.approx(2)
    assert weights[4] == 1 and weights.mean() == pytest.approx(1)
    assert not weigh_images(np.array([0, 1]), np.array([0.0, 0.0, 1.0])).any()


def test_a_class_without_images_has_a_share_above_0():
    np.testing.assert_allclose(share_out(np.array([3, 0, 1])), np.array([3, 0.5, 1]) / 4.5)
