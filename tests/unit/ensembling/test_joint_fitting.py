"""A joint space fitted: weights that stand only where they gain, honest answers, prototypes, the best alone."""

import numpy as np
import pytest

from productrec.ensembling.concatenation import concatenate_embeddings, normalise_embeddings
from productrec.ensembling.joint_file import SavedJoint, load_joint, save_joint
from productrec.ensembling.joint_fitting import JOINT, UNFITTED, answer_by_vote, answer_joint, fit_joint
from productrec.ensembling.joint_prototypes import JointPrototypes
from productrec.ensembling.joint_search import JointGallery
from productrec.ensembling.joint_weights import fit_joint_weights
from productrec.metrics.answers import summarise
from productrec.recognition.classifier import Evidence
from productrec.recognition.objective import Objective
from productrec.recognition.prototypes import build_prototypes, compare_prototypes
from productrec.recognition.scores import Scores
from productrec.recognition.weights import split_folds

OBJECTIVE = Objective("top_1_accuracy")
GRIDS = {"k_grid": (1, 5), "power_grid": (4.0, 16.0)}
CLASSES = 8


def draw(noises, seed=0, rows=160, queries=120, dim=12):
    """V models that see the same images with noise of their own: galleries, queries and both labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, rows + queries)
    made = []
    for noise in noises:
        values = generator.standard_normal((CLASSES, dim))[labels]
        made.append(normalise_embeddings(values + noise * generator.standard_normal((rows + queries, dim))))
    return [one[:rows] for one in made], [one[rows:] for one in made], labels[:rows], labels[rows:]


def build(noises, rule="concat", **how):
    """What `fit_joint` asks for, of drawn models."""
    galleries, queries, known, labels = draw(noises, **how)
    gallery, prototypes = JointGallery(galleries), JointPrototypes(galleries, known, CLASSES)

    def see(shares, rows):
        own = [one[rows] for one in queries]
        found = gallery.search(own, shares, rule, 10)
        near = prototypes.compare(own, shares, rule)
        return Evidence(np.zeros_like(near), known[found.rows], found.similarities, near)

    def answer(shares):
        found = gallery.search(queries, shares, rule, 10)
        return answer_by_vote(known[found.rows], found.similarities, labels, CLASSES)

    return see, answer, labels


@pytest.mark.parametrize("rule", ["concat", "product"])
def test_two_models_that_err_apart_are_better_together(rule):
    see, answer, labels = build([1.6, 1.6], rule)
    fitted = fit_joint(see, answer, ["a", "b"], labels, OBJECTIVE, **GRIDS)
    assert fitted.chosen == JOINT and fitted.chance > 0.9
    assert set(fitted.answers) == {JOINT, "a", "b"}
    assert set(fitted.answers["a"]) == {"nearest", "vote", "prototypes", "fused"}
    answered = answer_joint(see(fitted.shares, np.arange(len(labels))), fitted.classifier)
    np.testing.assert_allclose(answered.sum(axis=1), 1, atol=1e-5)
    assert (answered.argmax(axis=1) == labels).mean() > 0.7


@pytest.mark.parametrize("rule", ["concat", "product"])
def test_a_model_alone_answers_only_where_it_is_surely_better(rule):
    see, answer, labels = build([0.9, 9.0], rule)
    spoilt = fit_joint(see, answer, ["a", "b"], labels, OBJECTIVE, shares=np.array([0.0, 1.0]), **GRIDS)
    assert spoilt.chosen == "a" and spoilt.part in ("fused", "vote") and spoilt.best_alone[0] == "a"
    np.testing.assert_array_equal(spoilt.shares, [1, 0])
    assert spoilt.chance < 0.05
    np.testing.assert_array_equal(spoilt.evidence.classes, see(spoilt.shares, np.arange(len(labels))).classes)
    see, answer, labels = build([1.6, 1.6], rule, seed=5)
    fitted = fit_joint(see, answer, ["a", "b"], labels, OBJECTIVE, **GRIDS)
    assert fitted.chosen == JOINT


def test_a_model_of_noise_loses_its_weight_and_equal_ones_stay():
    _, answer, labels = build([0.9, 9.0])
    told = fit_joint_weights(answer, 2, len(labels), OBJECTIVE)
    assert told.is_kept and told.shares[0] > 0.7 and told.chance >= 0.8
    np.testing.assert_allclose(told.by_query.sum(axis=1), 1)
    _, answer, labels = build([1.6, 1.6])
    told = fit_joint_weights(answer, 2, len(labels), OBJECTIVE)
    assert not told.is_kept and told.chance < 0.8
    np.testing.assert_array_equal(told.by_query, np.full((len(labels), 2), 0.5))


def test_a_query_is_answered_by_weights_that_did_not_see_its_label():
    """The labels of one part become wrong; the weights that its queries are answered by must stay as they were."""
    _, answer, labels = build([0.9, 9.0])
    turned = (folds := split_folds(len(labels), 5)) == folds[0]
    wrong = summarise(np.full((len(labels), CLASSES), 1 / CLASSES, np.float32), np.full(len(labels), -1))

    def answer_turned(shares):
        told = answer(shares)
        names = told.__dataclass_fields__
        return type(told)(*(np.where(turned, getattr(wrong, name), getattr(told, name)) for name in names))

    first, second = (fit_joint_weights(one, 2, len(labels), OBJECTIVE) for one in (answer, answer_turned))
    assert first.is_kept and second.is_kept
    np.testing.assert_array_equal(second.by_query[turned], first.by_query[turned])


def test_given_weights_are_not_searched():
    see, answer, labels = build([1.0, 2.0])
    asked = []
    fitted = fit_joint(
        see, lambda shares: asked.append(shares) or answer(shares), ["a", "b"], labels, OBJECTIVE,
        shares=np.array([0.25, 0.75]), **GRIDS,
    )  # fmt: skip
    assert not asked and fitted.weights.chance is None
    np.testing.assert_array_equal(fitted.weights.shares, [0.25, 0.75])


@pytest.mark.parametrize("queries", [1, 3])
def test_a_handful_of_queries_is_enough(queries):
    see, answer, labels = build([1.0, 1.0, 1.0], queries=queries)
    fitted = fit_joint(see, answer, ["a", "b", "c"], labels, OBJECTIVE, **GRIDS)
    assert fitted.shares.sum() == pytest.approx(1)


def test_prototypes_are_those_of_concatenated_embeddings():
    galleries, queries, known, _ = draw([1.0, 2.0])
    known[known == 3] = 2  # a class without images
    shares, ids = np.array([0.7, 0.3]), [str(row) for row in range(len(known))]
    whole = concatenate_embeddings(["a", "b"], [ids] * 2, galleries, weights=shares)
    asked = concatenate_embeddings(["a", "b"], [ids[:120]] * 2, queries, weights=shares)
    expected = build_prototypes(whole, known, CLASSES)
    prototypes = JointPrototypes(galleries, known, CLASSES)
    np.testing.assert_allclose(prototypes.build(shares), expected, atol=1e-5)
    near = prototypes.compare(queries, shares, "concat")
    np.testing.assert_allclose(near, compare_prototypes(asked, expected), atol=1e-5)
    assert (near[:, 3] == -1).all()


def test_prototypes_of_a_product_are_the_product_of_each_models():
    galleries, queries, known, _ = draw([1.0, 2.0])
    known[known == 3] = 2
    near = JointPrototypes(galleries, known, CLASSES).compare(queries, np.array([0.5, 0.5]), "product")
    each = [own @ build_prototypes(rows, known, CLASSES).T for own, rows in zip(queries, galleries, strict=True)]
    expected = np.sqrt(np.maximum(each[0], 0) * np.maximum(each[1], 0))
    others = [row for row in range(CLASSES) if row != 3]
    np.testing.assert_allclose(near[:, others], expected[:, others], atol=1e-4)
    assert (near[:, 3] == -1).all()


def test_what_was_fitted_is_read_as_it_was_written(tmp_path):
    scores = {JOINT: {"vote": Scores(0.5, 0.1, "top_1_accuracy", "top-1 accuracy", 0.5, 10)}}
    saved = SavedJoint(
        "product", {"b": 0.5, "a": 0.5}, {"b": 1.0, "a": 0.0}, "b", "vote", UNFITTED, scores=scores, images=10
    )
    save_joint(tmp_path / "joint", saved, inputs={"table": "x"}, settings={})
    loaded = load_joint(tmp_path / "joint")
    assert loaded.fingerprint and loaded.scores == scores and loaded.classifier == UNFITTED
    assert loaded.answering == {"b": 1.0, "a": 0.0}
