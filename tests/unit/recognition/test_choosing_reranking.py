"""A re-ranking stays where it gains on queries that it was not fitted on; of several, where that is no luck."""

from dataclasses import replace

import numpy as np
import pytest

from productrec.metrics.competition import CompetitionMetric
from productrec.recognition import choosing_reranking as module
from productrec.recognition.choosing_reranking import choose_reranking, score_reranked
from productrec.recognition.fitting import fit_classifier
from productrec.recognition.objective import Objective
from productrec.retrieval.reranking.methods.label_aware import LabelAware
from productrec.retrieval.reranking.methods.whitening import Whitening
from tests.unit.recognition.test_classifier_fitting import GRIDS, draw

OBJECTIVE = Objective("top_k_error", 1)


def choose(*votes, base=0.3, queries=240):
    """What is chosen where the neighbours of each method in turn are right as often as is said, and without any."""
    evidence, labels = draw(queries=queries, vote=base, head=1.0)
    fitted = fit_classifier(evidence, labels, OBJECTIVE, **GRIDS)
    methods = [Whitening(), LabelAware(), Whitening(dimensions=3)]
    candidates = [
        (method, draw(queries=queries, vote=vote, head=1.0)[0]) for method, vote in zip(methods, votes, strict=False)
    ]
    return fitted, choose_reranking(fitted, iter(candidates), labels, OBJECTIVE, **GRIDS), labels


def test_the_method_whose_lists_tell_more_is_kept_with_a_classifier_of_its_own():
    fitted, tried, _ = choose(0.2, 0.9, 0.5)
    assert [step.told for step in tried.steps] == ["whitening", "label_aware", "whitening(dimensions=3)"]
    assert [step.is_kept for step in tried.steps] == [False, True, False]
    assert tried.kept.method == LabelAware() and tried.kept.depth == 8
    assert tried.kept.classifier != fitted.classifier
    score = score_reranked(tried, metric=CompetitionMetric("top_1_accuracy", 1))["reranked"]
    assert score.top_1_accuracy == (tried.steps[1].answers.ranks == 0).mean() > (fitted.answers.ranks == 0).mean()


def test_nothing_tried_and_nothing_gained_leave_what_stands():
    fitted, tried, labels = choose(0.1)
    assert (
        tried.kept is None
        and tried.answers is None
        and not score_reranked(tried, metric=CompetitionMetric("top_1_accuracy", 1))
    )
    assert len(tried.steps) == 1 and tried.steps[0].chance < 0.5
    nothing = choose_reranking(fitted, [], labels, OBJECTIVE, **GRIDS)
    assert nothing.steps == [] and nothing.kept is None


@pytest.mark.parametrize(("chance", "alone", "of_two"), [(0.79, False, False), (0.9, True, False), (0.96, True, True)])
def test_the_best_of_several_must_gain_more_surely_than_one_that_is_tried_alone(monkeypatch, chance, alone, of_two):
    monkeypatch.setattr(module, "compute_chance", lambda *args, **kwargs: chance)
    assert (choose(0.4)[1].kept is not None) == alone
    assert (choose(0.4, 0.3)[1].kept is not None) == of_two


def test_where_the_guard_is_gone_the_best_of_several_that_know_nothing_stays(monkeypatch):
    assert choose(0.3, 0.3, 0.3)[1].kept is None
    monkeypatch.setattr(module, "INSTEAD_FROM", 0.0)
    assert choose(0.3, 0.3, 0.3)[1].kept is not None


def test_methods_that_know_nothing_more_are_seldom_kept():
    kept = 0
    for seed in range(6):
        evidence, labels = draw(queries=150, seed=seed)
        fitted = fit_classifier(evidence, labels, OBJECTIVE, **GRIDS)
        generator = np.random.default_rng(100 + seed)
        others = []
        for method in (Whitening(), LabelAware(), Whitening(dimensions=3)):
            is_right = generator.random(evidence.classes.shape) < 0.5  # as those without any
            told = np.where(is_right, labels[:, None], generator.integers(0, 6, evidence.classes.shape))
            others.append((method, replace(evidence, classes=told)))
        kept += choose_reranking(fitted, others, labels, OBJECTIVE, **GRIDS).kept is not None
    assert kept <= 1
