"""Grown classes: the head says nothing of them, and all else is as it was fitted."""

import numpy as np
import pytest

from productrec.recognition.classifier import Classifier, Evidence, compute_parts
from productrec.recognition.grown import fuse_grown
from productrec.recognition.vote import Vote

LINEAR = Classifier(Vote(3, "power", 1.0), weights={"head": 0.75, "vote": 0.25})
PRODUCT = Classifier(Vote(3, "power", 1.0), weights={"head": 0.5, "vote": 0.1, "prototypes": 0.4}, rule="product")
NONE = np.zeros(3, bool)


def gather(classes, similarities, logits=((0.0, 1.0, 2.0), (3.0, 0.0, 0.0)), prototypes=None):
    return Evidence(
        np.array(logits, np.float32),
        np.array(classes),
        np.array(similarities, np.float32),
        None if prototypes is None else np.array(prototypes, np.float32),
    )


@pytest.mark.parametrize("classifier", [LINEAR, PRODUCT])
def test_without_grown_classes_it_is_the_classifier_itself(classifier):
    near = [[0.2, 0.5, 0.9], [0.8, 0.1, 0.3]]
    evidence = gather([[0, 1, 2], [2, 2, -1]], [[0.9, 0.5, 0.1], [0.8, 0.4, 0.2]], prototypes=near)
    fused = fuse_grown(evidence, classifier, grown_count=0, is_removed=NONE)
    np.testing.assert_array_equal(fused, compute_parts(evidence, classifier).fused)
    # Nor does a grown class change much where it is far from everything.
    far = [[*row, -1.0, -1.0] for row in near]
    wide = gather([[0, 1, 2], [2, 2, -1]], [[0.9, 0.5, 0.1], [0.8, 0.4, 0.2]], prototypes=far)
    wider = fuse_grown(wide, classifier, grown_count=2, is_removed=NONE)
    np.testing.assert_allclose(wider[:, :3], fused, atol=1e-4)
    assert (wider[:, 3:] < 1e-4).all()


def test_a_grown_class_keeps_its_share_of_the_vote():
    evidence = gather([[3, 0, 4], [3, 3, 3]], [[0.5, 0.25, 0.25], [0.9, 0.8, 0.7]])
    fused = fuse_grown(evidence, LINEAR, grown_count=2, is_removed=NONE)
    np.testing.assert_allclose(fused[:, 3:], [[0.5, 0.25], [1.0, 0.0]], atol=1e-5)
    head = np.exp([0.0, 1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()
    np.testing.assert_allclose(fused[0, :3], 0.25 * (0.75 * head + 0.25 * np.array([1, 0, 0])), atol=1e-5)
    np.testing.assert_allclose(fused.sum(axis=1), 1.0, atol=1e-5)


ALONE = [PRODUCT, Classifier(weights={"head": 1.0}), Classifier(weights={"prototypes": 1.0})]


@pytest.mark.parametrize("classifier", ALONE)
def test_whatever_speaks_a_grown_product_is_named_where_all_neighbours_are_of_it(classifier):
    evidence = gather([[3, 3, 3]], [[0.9, 0.8, 0.8]], logits=((1.0, 0.5, 0.0),), prototypes=[[0.1, 0.0, 0.1, 0.9]])
    fused = fuse_grown(evidence, classifier, grown_count=1, is_removed=NONE)
    assert fused.argmax() == 3 and fused[0, 3] > 0.9
    np.testing.assert_allclose(fused.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("classifier", [LINEAR, PRODUCT])
@pytest.mark.parametrize("grown_count", [0, 1])
def test_a_removed_class_is_never_named(grown_count, classifier):
    near = [[0.2, 0.5, 0.9] + [-1.0] * grown_count] * 2
    evidence = gather([[0, 1, -1], [-1, -1, -1]], [[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]], prototypes=near)
    is_removed = np.array([False, False, True])  # the favourite of head and prototypes
    fused = fuse_grown(evidence, classifier, grown_count=grown_count, is_removed=is_removed)
    assert (fused[:, 2] == 0).all()
    np.testing.assert_allclose(fused.sum(axis=1), 1.0, atol=1e-5)
    assert fused[:, :2].min() > 0


def test_with_no_neighbour_at_all_the_head_decides_among_what_is_left():
    evidence = Evidence(np.array([[0.0, 1.0, 2.0]], np.float32), np.empty((1, 0), int), np.empty((1, 0), np.float32))
    fused = fuse_grown(evidence, LINEAR, grown_count=0, is_removed=np.array([False, False, True]))
    assert fused.argmax() == 1 and fused[0, 2] == 0
    everything = fuse_grown(evidence, LINEAR, grown_count=0, is_removed=np.ones(3, bool))
    assert (everything == 0).all()
