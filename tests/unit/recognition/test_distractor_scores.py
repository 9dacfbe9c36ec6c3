"""Similarity to images of no product, and what it tells of unknown queries."""

import numpy as np
import pytest

from productrec.recognition import distractors as module
from productrec.recognition import open_set
from productrec.recognition.classifier import Classifier, Evidence
from productrec.recognition.distractors import compare_distractors
from productrec.recognition.open_set import (
    DISTRACTOR_SCORES,
    answer_beside,
    answer_open,
    believe,
    choose_threshold,
    list_scores,
)

CLASSES, QUERIES, STRANGERS = 4, 80, 60


def normalise(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_it_is_the_nearest_by_brute_force_block_by_block(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_DISTRACTORS", 7)
    generator = np.random.default_rng(0)
    queries, others = normalise(generator.normal(size=(9, 5))), normalise(generator.normal(size=(23, 5)))
    found = compare_distractors(queries, others)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [max(float(q @ o) for o in others) for q in queries], atol=1e-6)


def test_one_that_asks_is_not_compared_with_itself(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_DISTRACTORS", 4)
    others = normalise(np.random.default_rng(1).normal(size=(11, 6)))
    rows = np.array([0, 3, 4, 10])
    expected = [max(float(others[row] @ others[other]) for other in range(11) if other != row) for row in rows]
    np.testing.assert_allclose(compare_distractors(others[rows], others, rows), expected, atol=1e-6)
    assert compare_distractors(others[:1], others[:1], np.array([0])) == [-1.0]
    assert compare_distractors(others, others[:0]).tolist() == [-1.0] * 11


@pytest.fixture
def seen():
    """Known queries and strangers that look alike to head and neighbours, told apart by distractors alone."""
    generator = np.random.default_rng(2)
    labels = generator.integers(CLASSES, size=QUERIES)

    def build(best, far):
        count = len(best)
        logits = generator.normal(size=(count, CLASSES)).astype(np.float32)
        logits[np.arange(count), best] += 4
        classes = np.repeat(best[:, None], 3, axis=1)
        similarities = np.sort(generator.uniform(0.6, 0.8, (count, 3)).astype(np.float32))[:, ::-1]
        prototypes = generator.uniform(0, 0.1, (count, CLASSES)).astype(np.float32)
        return Evidence(logits, classes, similarities, prototypes, None, far.astype(np.float32))

    known = build(labels, generator.uniform(0.2, 0.5, QUERIES))
    unknown = build(generator.integers(CLASSES, size=STRANGERS), generator.uniform(0.7, 0.9, STRANGERS))
    return known, labels, unknown


def test_what_no_other_score_tells_is_told_by_distractors(seen):
    known, labels, unknown = seen
    threshold = choose_threshold(answer_open(known, labels, Classifier(), unknown))
    assert threshold.score in DISTRACTOR_SCORES
    assert threshold.true_accepts > 0.9 and threshold.false_accepts < 0.06
    assert threshold.unknown == STRANGERS and threshold.known == QUERIES
    fused = np.eye(CLASSES, dtype=np.float32)[labels]
    assert believe(known, fused, threshold).mean() > 0.9
    blind = answer_beside(*(part if isinstance(part, np.ndarray) else forget(part) for part in seen), Classifier())
    assert choose_threshold(blind).true_accepts < 0.5


def forget(evidence):
    """The same without distractors."""
    return Evidence(evidence.logits, evidence.classes, evidence.similarities, evidence.prototypes)


def test_without_distractors_their_scores_are_not_tried(seen):
    known, labels, _ = seen
    assert set(list_scores(known)) - set(list_scores(forget(known))) == set(DISTRACTOR_SCORES)
    turned = answer_open(forget(known), labels, Classifier(), None)
    assert set(turned.scores) == set(open_set.SCORES)


def test_too_few_distractors_leave_classes_to_be_hidden(seen):
    known, labels, unknown = seen
    few = unknown.take(np.arange(29))
    assert answer_beside(known, labels, few, Classifier()) is None
    turned = answer_open(known, labels, Classifier(), few)
    assert len(turned.queries) == 4 * QUERIES  # every class hidden in turn
    assert len(answer_open(known, labels, Classifier(), unknown.take(np.arange(30))).queries) == QUERIES + 30


def test_a_query_of_no_class_is_unknown_beside_distractors(seen):
    known, labels, unknown = seen
    labels = labels.copy()
    labels[:5] = -1
    assert int(answer_beside(known, labels, unknown, Classifier()).is_unknown.sum()) == STRANGERS + 5
