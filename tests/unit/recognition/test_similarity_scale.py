"""Similarities as probabilities: a known scale is found again, and what is reported was not fitted on itself."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from productrec.metrics.answers import summarise
from productrec.recognition.calibration import (
    SimilarityScale,
    calibrate,
    find_first_of_class,
    fit_similarity,
    read_similarity,
)
from productrec.recognition.classifier import Classifier, Evidence, compute_parts

SCALE = SimilarityScale(9.0, -6.0)


def draw(queries=3000, classes=8, neighbours=6, seed=0, scale=SCALE):
    """Queries whose neighbours are of their class as often as a scale says of their similarity."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, queries)
    similarities = -np.sort(-generator.uniform(0, 1, (queries, neighbours)), axis=1).astype(np.float32)
    near = np.stack([generator.permutation(classes)[:neighbours] for _ in range(queries)])
    near = np.where(near == labels[:, None], (near + 1) % classes, near)
    same = generator.random((queries, neighbours)) < scale.compute(similarities)
    near[same] = np.broadcast_to(labels[:, None], near.shape)[same]
    return Evidence(np.zeros((queries, classes), np.float32), near, similarities), labels


def test_a_known_scale_is_found_again_and_is_that_of_logistic_regression():
    generator = np.random.default_rng(0)
    similarities = generator.uniform(-0.2, 1, 40_000)
    is_same = generator.random(40_000) < SimilarityScale(8.0, -5.0).compute(similarities)
    found = fit_similarity(similarities, is_same)
    assert (found.slope, found.offset) == pytest.approx((8, -5), rel=0.05)
    plain = LogisticRegression(C=1e6).fit(similarities[:, None], is_same)
    assert (found.slope, found.offset) == pytest.approx((plain.coef_[0, 0], plain.intercept_[0]), rel=0.02)


def test_what_parts_right_from_wrong_without_a_flaw_gives_a_finite_scale():
    found = fit_similarity(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    low, high = found.compute(np.array([0.15, 0.85]))
    assert np.isfinite(found.slope) and low < 0.4 and high > 0.6
    same = fit_similarity(np.full(10, 0.5), np.arange(10) < 3)
    assert same.compute(np.array([0.5]))[0] == pytest.approx(0.3, abs=0.05)


def test_the_first_of_each_class_is_its_nearest():
    classes = np.array([[3, 1, 3, -1, 1, 2], [-1, -1, 0, 0, 0, 0]])
    expected = [[True, True, False, False, False, True], [False, False, True, False, False, False]]
    assert find_first_of_class(classes).tolist() == expected


def test_a_calibration_is_of_answers_and_of_products_told_by_others():
    evidence, labels = draw()
    fused = compute_parts(evidence, Classifier(weights={"vote": 1.0})).fused
    made = calibrate(summarise(fused, labels), evidence, labels)
    assert made.answers.count == len(labels)
    assert made.answers.accuracy == pytest.approx((fused.argmax(axis=1) == labels).mean())
    assert made.products is not None and made.products.error < 0.03
    assert made.products.count == find_first_of_class(evidence.classes).sum()
    assert read_similarity({"calibration": made.describe()}) == made.similarity
    assert read_similarity({}) is None


def test_similarities_that_know_nothing_are_not_reported_as_if_they_did():
    evidence, labels = draw(queries=60, scale=SimilarityScale(0.0, -0.5))
    made = calibrate(summarise(np.full((60, 8), 1 / 8), labels), evidence, labels)
    assert made.products is not None
    assert max(one.confidence for one in made.products.bins) - min(one.confidence for one in made.products.bins) < 0.4


def test_few_products_give_no_scale():
    evidence, labels = draw(queries=9)
    made = calibrate(summarise(np.full((9, 8), 1 / 8), labels), evidence, labels)
    assert made.similarity is None and made.products is None and made.describe()["similarity"] is None
    unknown = calibrate(summarise(np.full((9, 8), 1 / 8), np.full(9, -1)), evidence, np.full(9, -1))
    assert unknown.answers.accuracy == 0
