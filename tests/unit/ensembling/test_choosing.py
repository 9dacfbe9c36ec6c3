"""Which blend stands: told by nested validation, the best model alone among the ways."""

from typing import get_args

import numpy as np
import pytest

from productrec.ensembling.blend import blend_block
from productrec.ensembling.choosing import BEST, WAY_TITLES, WAYS, choose_blend, draw_fitted, take_best
from productrec.ensembling.diversity import compare_models
from productrec.metrics.answers import summarise
from productrec.recipe.predict import BlendWay
from productrec.recognition.objective import Objective
from productrec.recognition.weights import split_folds

OBJECTIVE = Objective("top_k_error", 1)


def draw(strengths, *, seed=0, queries=300, classes=8, shared=0.0):
    """Models that know the truth as strongly as is said, their errors shared in part."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, queries)
    noise = generator.normal(size=(queries, classes))
    parts = []
    for strength in strengths:
        own = generator.normal(size=(queries, classes))
        logits = strength * np.eye(classes)[labels] + shared * noise + (1 - shared) * own
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        parts.append((shares / shares.sum(axis=1, keepdims=True)).astype(np.float32))
    return parts, labels


def test_ways_and_the_setting_are_the_same_names():
    assert {"auto", *WAYS} == set(get_args(BlendWay)) and set(WAY_TITLES) == set(WAYS)


def test_a_bad_member_does_not_drag_the_ensemble_down():
    parts, labels = draw([3.0, 0.0, 0.0])
    chosen = choose_blend(parts, labels, OBJECTIVE)
    unseen, truth = draw([3.0, 0.0, 0.0], seed=1, queries=2000)
    alone = (unseen[0].argmax(axis=1) == truth).mean()
    mean = (np.mean(unseen, axis=0).argmax(axis=1) == truth).mean()
    blended = (blend_block(unseen, chosen.blend).argmax(axis=1) == truth).mean()
    assert blended > alone - 0.005 and mean < alone - 0.05


def test_members_that_err_apart_gain_together():
    parts, labels = draw([2.0, 2.0, 2.0])
    chosen = choose_blend(parts, labels, OBJECTIVE)
    unseen, truth = draw([2.0, 2.0, 2.0], seed=1, queries=2000)
    alone = max((part.argmax(axis=1) == truth).mean() for part in unseen)
    assert (blend_block(unseen, chosen.blend).argmax(axis=1) == truth).mean() > alone + 0.03
    assert chosen.way != BEST and chosen.trials[chosen.way].chance > 0.95


def test_each_image_is_answered_by_what_others_told():
    parts, labels = draw([2.0, 1.0], queries=60)
    chosen = choose_blend(parts, labels, OBJECTIVE, seed=3)
    folds = split_folds(60, 5, seed=3)
    expected = np.empty(60, np.int64)
    for fold in range(5):
        own, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        blend = take_best([part[others] for part in parts], labels[others], OBJECTIVE)
        expected[own] = summarise(blend_block([part[own] for part in parts], blend), labels[own]).ranks
    np.testing.assert_array_equal(chosen.trials[BEST].answers.ranks, expected)


def test_images_of_one_group_stay_together():
    parts, labels = draw([2.0, 2.0], queries=40)
    asked = []
    ways = {"spy": lambda some, known, objective: (asked.append(len(known)), take_best(some, known, objective))[1]}
    choose_blend(parts, labels, OBJECTIVE, ways=ways, groups=np.repeat(np.arange(4), 10).tolist())
    assert sorted(asked)[:4] == [30, 30, 30, 30]


def test_the_smallest_log_loss_stands_and_not_the_fewest_errors():
    parts, labels = draw([2.0, 2.0])
    chosen = choose_blend(parts, labels, OBJECTIVE)
    losses = {name: trial.answers.log_loss.mean() for name, trial in chosen.trials.items()}
    assert chosen.way == min(losses, key=losses.get)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_images_is_enough_not_to_fail(count):
    parts, labels = draw([2.0, 1.0], queries=count)
    chosen = choose_blend(parts, labels, OBJECTIVE)
    assert len(chosen.trials[chosen.way].answers.ranks) == count


def test_as_many_images_are_drawn_as_memory_holds_of_all_models():
    assert len(draw_fitted(50_000, 2, 10, most=20_000)) == 20_000
    rows = draw_fitted(50_000, 10, 2_019, most=20_000)
    assert len(rows) * 10 * 2_019 <= 1 << 26 and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(draw_fitted(7, 2, 3, most=20), np.arange(7))


def test_diversity_tells_who_disagrees_and_who_alone_is_right():
    parts = [np.eye(3, dtype=np.float32)[classes] for classes in ([0, 1, 2, 0], [0, 1, 1, 1], [0, 2, 1, 1])]
    labels = np.array([0, 1, 2, 2])
    found = compare_models(parts, labels, [summarise(part, labels) for part in parts], Objective("top_1_accuracy"))
    np.testing.assert_allclose(found.disagreement, [[0, 0.5, 0.75], [0.5, 0, 0.25], [0.75, 0.25, 0]])
    np.testing.assert_allclose(found.alone_right, [0.25, 0, 0])
    assert found.together == 0.5 and found.without[0] == pytest.approx(0.5)
    told = found.describe(["a", "b", "c"])
    assert told["disagreement"]["a"]["b"] == 0.5 and told["equal_mean_without"]["a"] == found.without[0]
