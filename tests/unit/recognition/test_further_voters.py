"""Further voters: they join where they gain, and whoever lacks them is answered as if they were not there."""

import json
from dataclasses import replace

import numpy as np

from productrec.metrics.answers import summarise
from productrec.metrics.competition import CompetitionMetric
from productrec.recognition.classifier import (
    Classifier,
    build_classifier,
    compute_parts,
    compute_voters,
    join_evidence,
    list_ways,
    name_way,
)
from productrec.recognition.fitting import fit_classifier, score_fitted
from productrec.recognition.grown import fuse_grown
from productrec.recognition.objective import Objective
from productrec.recognition.open_set import hide_classes
from productrec.recognition.vote import Vote, compute_vote, soften
from productrec.recognition.voters import FurtherVoter, VoterEvidence, align_voter
from productrec.recognition.weights import combine
from tests.unit.recognition.test_classifier_fitting import GRIDS, draw

OBJECTIVE = Objective("top_k_error", 1)
WEAK = {"head": 0.5, "vote": 0.25}  # so that another opinion can help


def draw_voter(labels, *, known=0.8, share=0.7, classes=6, seed=5):
    """Neighbours of which the nearest tells the class to so many queries; some queries have none."""
    generator = np.random.default_rng(seed)
    near = generator.integers(0, classes, (len(labels), 4))
    is_told = generator.random(len(labels)) < known
    near[is_told, :2] = labels[is_told, None]
    similarities = -np.sort(-generator.uniform(0.1, 1, near.shape), axis=1).astype(np.float32)
    return VoterEvidence(near, similarities, generator.random(len(labels)) < share)


def fit(evidence, labels):
    return fit_classifier(evidence, labels, OBJECTIVE, **GRIDS)


def test_a_voter_that_knows_joins_and_is_right_more_often_on_new_queries():
    evidence, labels = draw(600, **WEAK)
    titled = replace(evidence, voters={"titles": draw_voter(labels)})
    fitted = fit(titled.take(slice(0, 300)), labels[:300])
    assert [voter.name for voter in fitted.classifier.further] == ["titles"]
    rest, truth = titled.take(slice(300, 600)), labels[300:]
    with_titles = (compute_parts(rest, fitted.classifier).fused.argmax(axis=1) == truth).mean()
    without = (compute_parts(rest, fitted.classifier.ask(())).fused.argmax(axis=1) == truth).mean()
    assert with_titles > without + 0.05
    steps = {step.name: step for step in fitted.steps}
    assert steps["with titles"].is_kept and steps["with titles"].chance > 0.95
    assert len(steps["titles"].answers.ranks) == titled.voters["titles"].has[:300].sum()


def test_queries_without_the_voter_are_answered_as_the_fit_without_it_would():
    evidence, labels = draw(400, **WEAK)
    voter = draw_voter(labels)
    together = fit(replace(evidence, voters={"titles": voter}), labels)
    alone = fit(evidence, labels)
    assert together.classifier.further and together.classifier.ask(()) == alone.classifier
    expected = compute_parts(evidence, alone.classifier).fused
    said = compute_parts(replace(evidence, voters={"titles": voter}), together.classifier).fused
    np.testing.assert_array_equal(said[~voter.has], expected[~voter.has])
    assert (said[voter.has] != expected[voter.has]).any()
    np.testing.assert_array_equal(compute_parts(evidence, together.classifier).fused, expected)
    grown = fuse_grown(evidence, together.classifier, grown_count=0, is_removed=np.zeros(6, bool))
    np.testing.assert_array_equal(grown, expected)


def test_a_voter_of_noise_is_left_out_mostly():
    """The gate lets luck pass in a fifth of the cases."""
    kept = 0
    for seed in range(10):
        evidence, labels = draw(200, seed=seed)
        voter = draw_voter(labels, known=0.0, seed=seed)
        kept += bool(fit(replace(evidence, voters={"titles": voter}), labels).classifier.further)
    assert kept <= 4


def test_a_voter_that_few_have_is_not_fitted():
    evidence, labels = draw(200, **WEAK)
    voter = draw_voter(labels, known=1.0)
    few = replace(voter, has=np.arange(200) < 9)
    fitted = fit(replace(evidence, voters={"titles": few}), labels)
    assert not fitted.classifier.further and fitted.steps[-1].chance == 0.5
    nobody = replace(voter, has=np.zeros(200, bool))
    assert fit(replace(evidence, voters={"titles": nobody}), labels).steps[-1].name != "with titles"


def test_several_voters_join_one_after_the_other_and_who_lacks_one_is_answered_by_those_before():
    evidence, labels = draw(500, head=0.3, vote=0.25)
    voters = {name: draw_voter(labels, known=0.6, seed=seed) for seed, name in enumerate(("titles", "text", "joined"))}
    fitted = fit(replace(evidence, voters=voters), labels).classifier
    assert [voter.name for voter in fitted.further] == ["titles", "text", "joined"]
    said = compute_parts(replace(evidence, voters=voters), fitted).fused
    for count in range(4):
        named = list(voters)[:count]
        has = np.logical_and.reduce([np.ones(500, bool), *(voters[name].has for name in named)])
        if count < 3:
            has &= ~voters[list(voters)[count]].has
        expected = compute_parts(replace(evidence, voters=voters), fitted.ask(named)).fused
        np.testing.assert_array_equal(said[has], expected[has])


def test_an_answer_is_the_product_that_the_weights_say():
    evidence, labels = draw(50)
    voter = draw_voter(labels, share=1.0)
    titles = FurtherVoter("titles", Vote(3, "power", 2.0), {"head": 0.7, "prototypes": 0.2, "titles": 0.9})
    parts = compute_parts(replace(evidence, voters={"titles": voter}), Classifier(further=(titles,)))
    own = soften(compute_vote(voter.classes, voter.similarities, 6, titles.vote))
    expected = combine([parts.head, parts.prototypes, own], [0.7, 0.2, 0.9], "product")
    np.testing.assert_allclose(parts.fused, expected, atol=1e-6)


def test_a_classifier_comes_back_from_json_and_one_of_before_there_were_voters_loads():
    titles = FurtherVoter("titles", Vote(3, "rank", 1.0, "max"), {"head": 0.5, "titles": 1.5})
    classifier = Classifier(further=(titles,))
    assert build_classifier(json.loads(json.dumps(classifier.describe()))) == classifier
    old = Classifier().describe()
    assert "further" not in old and build_classifier(old) == Classifier()
    assert "vote of 3 neighbours by titles ^ 1.5" in classifier.tell_further()


def test_joined_evidence_lacks_a_voter_where_a_part_does():
    evidence, labels = draw(20)
    titled = replace(evidence, voters={"titles": draw_voter(labels, share=1.0)})
    joined = join_evidence([evidence, titled, evidence]).voters["titles"]
    assert joined.has.tolist() == [False] * 20 + [True] * 20 + [False] * 20
    np.testing.assert_array_equal(joined.classes[20:40], titled.voters["titles"].classes)


def test_a_hidden_class_is_hidden_from_the_voters_too():
    evidence, labels = draw(40)
    voter = draw_voter(labels, known=1.0, share=1.0)
    one_class = replace(voter, classes=np.where(np.arange(40)[:, None] < 5, 2, voter.classes))
    seen = hide_classes(replace(evidence, voters={"titles": one_class}), np.arange(6) == 2).voters["titles"]
    assert not (seen.classes == 2).any() and not seen.has[:5].any()
    assert ((seen.classes >= 0) == (seen.similarities > 0)).all()


def test_neighbours_come_to_the_images_that_have_them():
    aligned = align_voter(["a", "b", "c"], ["c", "x", "a"], np.array([[1], [2], [3]]), np.array([[0.5], [0.6], [0.7]]))
    assert aligned.has.tolist() == [True, False, True]
    assert aligned.classes[[0, 2], 0].tolist() == [3, 1]


def test_a_voter_stands_in_the_staircase_with_its_own_accuracy_on_those_who_have_it():
    evidence, labels = draw(300, **WEAK)
    voter = draw_voter(labels)
    titled = replace(evidence, voters={"titles": voter})
    fitted = fit(titled, labels)
    scores = score_fitted(fitted, titled, labels, metric=CompetitionMetric("top_1_accuracy"))
    assert list_ways(scores) == ["head", "nearest", "vote", "prototypes", "titles", "fused"]
    assert name_way("titles") == "vote of titles" and name_way("head") == "head alone"
    assert scores["titles"].images == voter.has.sum() and scores["fused"].images == 300
    own = compute_voters(titled, fitted.classifier)["titles"][voter.has]
    right = (summarise(own, labels[voter.has]).ranks == 0).mean()
    assert abs(scores["titles"].top_1_accuracy - right) < 0.1
