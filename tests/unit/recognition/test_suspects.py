"""Doubt about labels: by hand, over blocks, and a label planted wrong."""

import numpy as np
import pytest

from productrec.errors import DataError
from productrec.recognition import suspects
from productrec.recognition.classifier import Classifier, Evidence
from productrec.recognition.suspects import judge_labels
from productrec.recognition.vote import Vote

CLASSIFIER = Classifier()


def test_doubt_by_hand() -> None:
    evidence = Evidence(
        logits=np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32)),
        classes=np.array([[0, 0, 1, 1], [2, 2, 2, 2]]),
        similarities=np.ones((2, 4), np.float32),
    )
    judged = judge_labels(evidence, np.array([0, 1]), Classifier(Vote(4, "power", 1.0)))
    # Fused: 0.6, 0.35, 0.05 and 0.05, 0.05, 0.9.
    np.testing.assert_allclose(judged.doubt, [0.5 - 0.25 / 2, 0.5 + 0.85 / 2], atol=1e-6)
    assert judged.suggested.tolist() == [0, 2]
    np.testing.assert_allclose(judged.agreement, [0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(judged.margin, [0.5, -0.7], atol=1e-6)


def test_blocks_change_nothing_and_planted_labels_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 5, 300)
    logits = generator.normal(size=(300, 5)).astype(np.float32) + 5 * np.eye(5, dtype=np.float32)[truth]
    near = np.where(generator.random((300, 10)) < 0.9, truth[:, None], generator.integers(0, 5, (300, 10)))
    evidence = Evidence(logits, near, np.sort(generator.random((300, 10)).astype(np.float32))[:, ::-1])
    given = truth.copy()
    planted = generator.choice(300, 30, replace=False)
    given[planted] = (given[planted] + 1) % 5
    whole = judge_labels(evidence, given, CLASSIFIER)
    assert set(np.argsort(-whole.doubt)[:30].tolist()) == set(planted.tolist())
    assert (whole.suggested[planted] == truth[planted]).mean() > 0.9
    monkeypatch.setattr(suspects, "_BLOCK_ROWS", 7)
    for one, other in zip(judge_labels(evidence, given, CLASSIFIER), whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_labels_that_are_no_positions_are_refused() -> None:
    evidence = Evidence(np.zeros((2, 3), np.float32), np.zeros((2, 1), np.int64), np.ones((2, 1), np.float32))
    for labels in (np.array([0]), np.array([0, 3]), np.array([-1, 0])):
        with pytest.raises(DataError, match="one position from 0 to 2"):
            judge_labels(evidence, labels, CLASSIFIER)
