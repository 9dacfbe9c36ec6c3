"""Grown classes in the fusion: the head says nothing of them, and all else is as it was fitted."""

import numpy as np
import pytest

from productrec.recognition.fusion import Evidence, Fusion, compute_parts
from productrec.recognition.grown import fuse_grown

FUSION = Fusion(k=3, power=1.0, head_weight=0.75)


def gather(classes, similarities, logits=((0.0, 1.0, 2.0), (3.0, 0.0, 0.0))):
    return Evidence(np.array(logits, np.float32), np.array(classes), np.array(similarities, np.float32))


def test_without_grown_classes_it_is_the_fusion_itself():
    evidence = gather([[0, 1, 2], [2, 2, -1]], [[0.9, 0.5, 0.1], [0.8, 0.4, 0.2]])
    fused = fuse_grown(evidence, FUSION, grown_count=0, is_removed=np.zeros(3, bool))
    np.testing.assert_array_equal(fused, compute_parts(evidence, FUSION).fused)
    # Nor does a grown class change anything where no neighbour is of it.
    wider = fuse_grown(evidence, FUSION, grown_count=2, is_removed=np.zeros(3, bool))
    np.testing.assert_allclose(wider[:, :3], fused, atol=1e-6)
    assert (wider[:, 3:] == 0).all()


def test_a_grown_class_keeps_its_share_of_the_vote():
    evidence = gather([[3, 0, 4], [3, 3, 3]], [[0.5, 0.25, 0.25], [0.9, 0.8, 0.7]])
    fused = fuse_grown(evidence, FUSION, grown_count=2, is_removed=np.zeros(3, bool))
    np.testing.assert_allclose(fused[:, 3:], [[0.5, 0.25], [1.0, 0.0]], atol=1e-6)
    head = np.exp([0.0, 1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()
    np.testing.assert_allclose(fused[0, :3], 0.25 * (0.75 * head + 0.25 * np.array([1, 0, 0])), atol=1e-6)
    np.testing.assert_allclose(fused.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("grown_count", [0, 1])
def test_a_removed_class_is_never_named(grown_count):
    evidence = gather([[0, 1, -1], [-1, -1, -1]], [[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]])
    is_removed = np.array([False, False, True])  # the head's favourite in the first row
    fused = fuse_grown(evidence, FUSION, grown_count=grown_count, is_removed=is_removed)
    assert (fused[:, 2] == 0).all()
    np.testing.assert_allclose(fused.sum(axis=1), 1.0, atol=1e-6)
    assert fused[:, :2].min() > 0 and (fused[:, 3:] == 0).all()


def test_with_no_neighbour_at_all_the_head_decides_among_what_is_left():
    evidence = Evidence(np.array([[0.0, 1.0, 2.0]], np.float32), np.empty((1, 0), int), np.empty((1, 0), np.float32))
    fused = fuse_grown(evidence, FUSION, grown_count=1, is_removed=np.array([False, False, True]))
    assert fused.argmax() == 1 and fused[0, 2] == fused[0, 3] == 0
    everything = fuse_grown(evidence, FUSION, grown_count=1, is_removed=np.ones(3, bool))
    assert (everything == 0).all()
