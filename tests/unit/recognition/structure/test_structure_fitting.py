"""Fitting the chain: what gains on images that it was not fitted on stays, what does not is left out."""

import numpy as np
import pytest

from productrec.metrics.answers import summarise
from productrec.recognition.objective import Objective, compute_chance
from productrec.recognition.structure.chain import STEPS, Structured, apply_chain
from productrec.recognition.structure.fitting import UNTRIED, fit_structure
from productrec.recognition.structure.prior import share_out, weigh_images

OBJECTIVE = Objective("top_k_error", 1)
CLASSES = 8


def draw(count=400, seed=0, noise=1.5):
    """Labels, and probabilities that are right about as often as not."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    logits = generator.normal(0, noise, (count, CLASSES))
    logits[np.arange(count), labels] += 2.0
    shares = np.exp(logits)
    return labels, (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def fit(images, labels, *steps, **others):
    return fit_structure(images, np.arange(len(labels)), labels, OBJECTIVE, steps=steps, **others)


def group_by(labels, size=4):
    order = np.argsort(labels, kind="stable")
    groups = np.empty(len(labels), np.int64)
    groups[order] = np.arange(len(labels)) // size
    return groups


def test_groups_of_one_product_gain_and_stay():
    labels, values = draw()
    images = Structured(values, groups=group_by(labels))
    fitted = fit(images, labels, "groups")
    assert fitted.steps[0].is_kept and fitted.steps[0].chance > 0.99 and fitted.strengths == {"groups": 1.0}
    assert OBJECTIVE.judge(fitted.after) < OBJECTIVE.judge(fitted.before) - 0.2
    new_labels, new_values = draw(seed=1)
    new = np.empty_like(new_values)
    for rows, block in apply_chain(Structured(new_values, groups=group_by(new_labels)), fitted.strengths):
        new[rows] = block
    assert (new.argmax(1) == new_labels).mean() > (new_values.argmax(1) == new_labels).mean() + 0.1


def test_groups_that_have_nothing_to_do_with_products_are_left_out():
    labels, values = draw()
    images = Structured(values, groups=np.random.default_rng(2).permutation(group_by(labels)))
    fitted = fit(images, labels, "groups")
    assert not fitted.steps[0].is_kept and fitted.steps[0].chance < 0.5 and fitted.strengths == {}
    np.testing.assert_array_equal(fitted.after.ranks, fitted.before.ranks)


def test_categories_that_are_true_gain_and_drawn_ones_do_not():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, CLASSES, 600)
    logits = generator.normal(0, 1.5, (600, CLASSES))
    logits[np.arange(CLASSES) // 4 == labels[:, None] // 4] += 1.0  # siblings are alike
    logits[np.arange(600), labels] += 1.0
    values = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    kept = fit(Structured(values, categories=[0] * 4 + [1] * 4), labels, "categories")
    assert kept.steps[0].is_kept
    out = fit(Structured(values, categories=[0, 1] * 4), labels, "categories")
    assert not out.steps[0].is_kept


def test_the_prior_is_judged_on_images_that_are_weighed_to_the_wanted_shares():
    generator = np.random.default_rng(4)
    trained = share_out(np.arange(1, CLASSES + 1) ** 2)
    labels, values = draw(800)
    values = values * trained
    values /= values.sum(axis=1, keepdims=True)
    for wanted in (np.full(CLASSES, 1 / CLASSES), trained[::-1]):
        fitted = fit(Structured(values, ratios=wanted / trained), labels, "prior", weights=weigh_images(labels, wanted))
        assert fitted.steps[0].is_kept and fitted.steps[0].strength >= 0.5
    wrong = generator.permutation(np.geomspace(1, 1e4, CLASSES))  # a correction that nothing supports
    fitted = fit(Structured(values, ratios=wrong / wrong.sum()), labels, "prior", weights=weigh_images(labels, trained))
    assert not fitted.steps[0].is_kept


def test_what_cannot_be_tried_says_why_and_others_go_on():
    labels, values = draw()
    images = Structured(values, groups=group_by(labels), ratios=np.ones(CLASSES))
    fitted = fit(images, labels, *reversed(STEPS), weights=np.zeros(len(labels)))
    assert [step.name for step in fitted.steps] == list(STEPS)
    assert fitted.steps[0].is_kept
    assert [step.reason for step in fitted.steps[1:]] == [UNTRIED["categories"], UNTRIED["prior"]]
    alone = fit(Structured(values[:1], categories=[0] * CLASSES), labels[:1], "groups", "categories")
    assert all(step.chance is None for step in alone.steps) and alone.strengths == {}


def test_only_labelled_images_tell_and_the_others_of_their_group_have_a_say():
    labels, values = draw(40)
    groups = group_by(labels)
    rows = np.arange(0, 40, 2)
    fitted = fit_structure(Structured(values, groups=groups), rows, labels[rows], OBJECTIVE, steps=["groups"])
    assert len(fitted.after.ranks) == len(rows)
    np.testing.assert_array_equal(fitted.before.ranks, summarise(values[rows], labels[rows]).ranks)


@pytest.mark.parametrize("metric", ["top_1_accuracy", "macro_f1"])
def test_a_chance_counts_images_by_their_weights(metric):
    labels = np.array([0] * 30 + [1] * 30)
    right, half = np.eye(2, dtype=np.float32)[labels], np.eye(2, dtype=np.float32)[[0] * 60]
    half[:5] = [0, 1]  # wrong on five of the first class, where the other is right; wrong on all of the second
    other = right.copy()
    other[:10] = [0, 1]
    one, two = summarise(half, labels), summarise(other, labels)
    objective = Objective(metric, 1)
    assert compute_chance(objective, two, one) > 0.95
    assert compute_chance(objective, two, one, weights=np.where(labels == 0, 1.0, 0.0)) < 0.1
    assert compute_chance(objective, two, one, weights=np.zeros(60)) == 0.5
