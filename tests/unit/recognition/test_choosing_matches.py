import numpy as np
import pytest

from productrec.errors import DataError
from productrec.metrics.matches import score_matches
from productrec.recognition.choosing_matches import PLAIN, LabelledPool, choose_matching, compute_group_interval
from productrec.recognition.matching import Neighbourhood, list_matches


def search(embeddings: np.ndarray, most: int = 50) -> Neighbourhood:
    similarities = (embeddings @ embeddings.T).astype(np.float32)
    np.fill_diagonal(similarities, -np.inf)
    rows = np.argsort(-similarities, axis=1)[:, : min(most, len(embeddings)) - 1]
    return Neighbourhood(rows, np.take_along_axis(similarities, rows, 1))


def draw(classes: int, size: int, *, noise: float, seed: int, dim: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of classes of so many images each, around a direction a class."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), size)
    centres = generator.normal(size=(classes, dim))
    embeddings = centres[labels] + noise * generator.normal(size=(len(labels), dim))
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), labels


def make_pool(near: dict[str, Neighbourhood], labels: np.ndarray, weight: float = 1.0) -> LabelledPool:
    return LabelledPool(near, labels, np.ones(len(labels), bool), weight)


def test_far_classes_are_matched_whole_and_the_f1_that_is_told_is_of_new_ones() -> None:
    embeddings, labels = draw(30, 4, noise=0.2, seed=1)
    chosen = choose_matching(make_pool({PLAIN: search(embeddings)}, labels))
    assert chosen.f1 > 0.95 and chosen.interval[0] <= chosen.f1 <= chosen.interval[1]
    new, new_labels = draw(30, 4, noise=0.2, seed=2)
    f1 = score_matches(list_matches(search(new), chosen.rule), new_labels).mean()
    assert f1 == pytest.approx(chosen.f1, abs=0.05)


def test_at_least_two_is_kept_where_no_image_is_alone_and_left_out_where_most_are() -> None:
    embeddings, labels = draw(60, 2, noise=0.7, seed=3)
    pairs = choose_matching(make_pool({PLAIN: search(embeddings)}, labels))
    assert pairs.rule.at_least == 2 and pairs.steps[0].is_kept
    embeddings, labels = draw(60, 1, noise=0.7, seed=3)
    more, other = draw(4, 2, noise=0.2, seed=4)
    both = np.concatenate([embeddings, more])
    single = choose_matching(make_pool({PLAIN: search(both)}, np.concatenate([labels, 100 + other])))
    assert single.rule.at_least == 1 and not single.steps[0].is_kept


def test_changed_embeddings_stay_where_they_gain_alone() -> None:
    bad, labels = draw(40, 4, noise=0.9, seed=5)
    good, _ = draw(40, 4, noise=0.3, seed=5)
    gained = choose_matching(make_pool({PLAIN: search(bad), "other": search(good)}, labels))
    assert gained.embeddings == "other" and gained.steps[-1].is_kept
    lost = choose_matching(make_pool({PLAIN: search(good), "other": search(bad)}, labels))
    assert lost.embeddings == PLAIN and not lost.steps[-1].is_kept


def test_labels_that_similarities_know_nothing_of_gain_nothing_by_being_fitted_on() -> None:
    embeddings, labels = draw(40, 4, noise=0.3, seed=6)
    shuffled = np.random.default_rng(0).permutation(labels)
    chosen = choose_matching(make_pool({PLAIN: search(embeddings)}, shuffled), steps=())
    assert chosen.f1 < 0.45  # the image alone gets 0.4


def test_mistakes_that_count_more_make_the_threshold_higher() -> None:
    embeddings, labels = draw(80, 3, noise=0.5, seed=7)
    near = {PLAIN: search(embeddings)}
    once = choose_matching(make_pool(near, labels), steps=()).rule.threshold
    often = choose_matching(make_pool(near, labels, weight=20.0), steps=()).rule.threshold
    assert often > once


def test_images_that_are_not_judged_are_there_to_be_mistaken() -> None:
    embeddings, labels = draw(80, 3, noise=0.5, seed=8)
    is_judged = labels < 20
    few = LabelledPool({PLAIN: search(embeddings[is_judged])}, labels[is_judged], np.ones(is_judged.sum(), bool))
    many = LabelledPool({PLAIN: search(embeddings)}, labels, is_judged)
    among_few, among_many = choose_matching(few, steps=()), choose_matching(many, steps=())
    assert among_many.images == among_few.images == 60
    assert among_many.f1 < among_few.f1 and among_many.rule.threshold > among_few.rule.threshold


def test_one_class_alone_cannot_be_judged() -> None:
    embeddings, labels = draw(1, 4, noise=0.3, seed=9)
    with pytest.raises(DataError, match="at least two classes"):
        choose_matching(make_pool({PLAIN: search(embeddings)}, labels))


def test_an_interval_over_groups_is_wider_than_one_over_their_images() -> None:
    values = np.repeat(np.random.default_rng(0).random(20), 10)
    groups = np.repeat(np.arange(20), 10)
    over_groups = compute_group_interval(values, groups)
    over_images = compute_group_interval(values, np.arange(200))
    assert over_groups[1] - over_groups[0] > 2 * (over_images[1] - over_images[0])
