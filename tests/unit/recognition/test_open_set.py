"""Unknown products: hidden classes are as if they had never been, and thresholds hold what they promise."""

import numpy as np
import pytest

from productrec.recognition.classifier import Classifier, Evidence, compute_parts
from productrec.recognition.open_set import (
    SCORES,
    Threshold,
    believe,
    compute_open_set_curve,
    fit_threshold,
    hide_classes,
    is_measurable,
)


def draw(queries=900, neighbours=12, classes=10, seed=0, gap=0.4):
    """Queries whose neighbours of their own class are nearer by ``gap``."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, queries)
    near = np.where(
        generator.random((queries, neighbours)) < 0.5,
        labels[:, None],
        generator.integers(0, classes, (queries, neighbours)),
    )
    similarities = generator.uniform(0.1, 0.5, (queries, neighbours)) + gap * (near == labels[:, None])
    order = np.argsort(-similarities, axis=1)
    near, similarities = np.take_along_axis(near, order, 1), np.take_along_axis(similarities, order, 1)
    logits = generator.standard_normal((queries, classes)).astype(np.float32)
    logits[np.arange(queries), labels] += 3
    prototypes = generator.uniform(-0.2, 0.4, (queries, classes)).astype(np.float32)
    prototypes[np.arange(queries), labels] += gap
    return Evidence(logits, near, similarities.astype(np.float32), prototypes), labels


def test_hidden_classes_are_as_if_they_had_never_been():
    evidence, _ = draw()
    hidden = np.zeros(10, dtype=bool)
    hidden[[2, 7]] = True
    kept = np.flatnonzero(~hidden)
    seen = hide_classes(evidence, hidden)
    assert not np.isin(seen.classes, [2, 7]).any()
    for row in (0, 5, 100):
        stays = ~np.isin(evidence.classes[row], [2, 7])
        np.testing.assert_array_equal(seen.classes[row, : stays.sum()], evidence.classes[row, stays])
        np.testing.assert_array_equal(seen.similarities[row, : stays.sum()], evidence.similarities[row, stays])
    classifier = Classifier(weights={"head": 1.0})
    alone = Evidence(evidence.logits[:, kept], np.full_like(seen.classes, -1), seen.similarities)
    np.testing.assert_allclose(
        compute_parts(seen, classifier).fused[:, kept], compute_parts(alone, classifier).fused, atol=1e-5
    )
    assert compute_parts(seen, classifier).fused[:, hidden].max() < 1e-6


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_on_new_unknowns_no_more_are_believed_than_was_promised(share):
    evidence, labels = draw(queries=6000)
    fitted = fit_threshold(evidence.take(slice(0, 3000)), labels[:3000], Classifier(), false_accepts=share)
    assert fitted.false_accepts <= share and fitted.true_accepts > 0.3
    rest, truth = evidence.take(slice(3000, None)), labels[3000:]
    hidden = np.zeros(10, dtype=bool)
    hidden[:2] = True
    seen = hide_classes(rest, hidden)
    fused = compute_parts(seen, Classifier()).fused
    believed = believe(seen, fused, fitted)
    assert believed[truth < 2].mean() <= 2 * share + 0.01
    assert (believed & (fused.argmax(axis=1) == truth))[truth >= 2].mean() > 0.8 * fitted.true_accepts


def test_the_score_that_tells_most_is_taken():
    evidence, labels = draw(gap=0.8)  # neighbours tell surely, the head little
    evidence.logits[:] = np.random.default_rng(1).standard_normal(evidence.logits.shape)
    assert fit_threshold(evidence, labels, Classifier(weights={"vote": 1.0})).score in ("similarity", "agreement")


def test_queries_that_are_unknown_from_the_start_count_in_every_turn():
    evidence, labels = draw()
    some = np.where(np.arange(len(labels)) < 300, -1, labels)
    fitted = fit_threshold(evidence, some, Classifier(), false_accepts=0.05)
    assert (fitted.known, fitted.unknown) == (4 * 600, 5 * 300 + 600)


def test_what_cannot_be_told_is_not():
    evidence, labels = draw(queries=100)
    few = fit_threshold(evidence, labels, Classifier(), false_accepts=0.01)  # one false accept is all of it
    assert few.unknown == 100 and few.false_accepts == 0.03
    assert fit_threshold(evidence.take(slice(0, 29)), labels[:29], Classifier()) is None
    assert fit_threshold(evidence, np.zeros_like(labels), Classifier()) is None
    assert fit_threshold(evidence, np.full_like(labels, -1), Classifier()) is None
    assert is_measurable(3000, 0.001) and not is_measurable(2999, 0.001)


def test_the_curve_counts_what_its_thresholds_let_in():
    known, unknown = np.array([0.9, 0.8, 0.4, 0.7]), np.array([0.75, 0.1])
    right = np.array([True, False, True, True])
    thresholds, accepted, false = compute_open_set_curve(known, right, unknown)
    for threshold, share, wrong in zip(thresholds, accepted, false, strict=True):
        assert share == ((known >= threshold) & right).mean()
        assert wrong == (unknown >= threshold).mean()
    assert (thresholds[0], accepted[-1], false[-1]) == (0.9, 0.75, 1.0)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_believes_from_its_value_on(name):
    evidence, _ = draw(queries=20)
    fused = compute_parts(evidence, Classifier()).fused
    values = SCORES[name](evidence, fused)
    middle = float(np.sort(values)[10])
    assert believe(evidence, fused, Threshold(name, middle, 0, 0, 1, 1)).sum() == (values >= middle).sum() >= 10
