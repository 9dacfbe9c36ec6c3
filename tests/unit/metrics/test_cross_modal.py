"""Cross-modal retrieval: known cases, ties, equal titles, folds, intervals, what is refused."""

import numpy as np
import pytest

from productrec.errors import DataError
from productrec.metrics.cross_modal import compute_cross_modal, compute_cross_modal_folds, group_equal_titles
from productrec.metrics.intervals import compute_intervals

EYE = np.eye(4, dtype=np.float32)


def test_an_image_has_found_its_own_where_the_best_of_its_titles_stands():
    found = compute_cross_modal(EYE[:2], EYE[[1, 0, 2, 1]], np.array([0, 0, 1, 1]))
    assert found.image_ranks.tolist() == [1, 2]  # image 1 is as close to title 0, which is image 0's, as to title 3
    assert found.title_ranks.tolist() == [2, 1, 2, 1]
    figures = found.measure()
    assert figures["image_to_title_recall@1"] == 0.5
    assert figures["title_to_image_recall@1"] == 0.5
    assert figures["image_to_title_median_rank"] == 1.0  # of 1 and 2, rounded down
    assert figures["title_to_image_mean_rank"] == 1.5
    assert figures["recall_sum"] == 5.0


def test_a_network_that_tells_nothing_apart_gets_what_chance_would():
    same = np.repeat(EYE[:1], 20, axis=0)
    figures = compute_cross_modal(same, same, np.arange(20)).measure()
    assert figures["image_to_title_recall@1"] == figures["title_to_image_recall@1"] == pytest.approx(1 / 20)
    assert figures["image_to_title_mean_rank"] == 10.5


def test_equal_titles_of_other_images_are_right_answers():
    owners, groups = np.array([0, 1, 2]), group_equal_titles(["Oat milk", "oat milk", "Oat milk"])
    images, titles = EYE[:3], EYE[[2, 1, 0]]
    assert compute_cross_modal(images, titles, owners).title_ranks.tolist() == [2, 1, 3]
    found = compute_cross_modal(images, titles, owners, title_groups=groups)
    assert found.image_ranks.tolist() == [1, 1, 1]
    assert found.title_ranks.tolist() == [1, 1, 1]


def test_equal_titles_are_told_letter_by_letter_whatever_their_form():
    assert group_equal_titles(["süß", "su\u0308ß", "Süß", "süß "]).tolist() == [0, 0, 1, 2]


def test_images_without_titles_and_titles_without_images_are_found_but_do_not_ask():
    found = compute_cross_modal(EYE[:3], EYE[[1, 2, 0]], np.array([0, 0, -1]))
    assert found.image_ranks.tolist() == [2, 0, 0]  # behind the title without an image, the only one like it
    assert found.title_ranks.tolist() == [2, 2, 0]
    nothing = compute_cross_modal(EYE[:1], EYE[:1], np.array([-1])).measure()
    assert all(np.isnan(value) for value in nothing.values())


def test_images_that_fill_no_fold_are_left_out():
    owners = np.array([0, 1, 2, 3, 0])
    folds = compute_cross_modal_folds(EYE, EYE[[1, 0, 2, 3, 0]], owners, fold_images=3)
    assert folds.left_out == 1 and folds.count == 3
    assert folds.parts[0].title_ranks.tolist() == [2, 2, 1, 1]
    with pytest.raises(DataError, match="fold_images must be from 1 to 4, the images at hand; got 5"):
        compute_cross_modal_folds(EYE, EYE, owners[:4], fold_images=5)
    with pytest.raises(DataError, match="got none of images 2 to 3"):
        compute_cross_modal_folds(EYE, EYE, np.array([0, 0, 1, 1]), fold_images=2)


def test_intervals_draw_images_with_their_titles():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = compute_cross_modal(rows[:20], rows[20:], np.arange(40) // 2)
    figures = found.measure()
    for name, (low, high) in compute_intervals(found.measure, found.count, draws=50).items():
        assert low <= figures[name] <= high
    alone = np.zeros(20)
    alone[3] = 2.0
    assert found.measure(alone)["title_to_image_mean_rank"] == found.title_ranks[6:8].mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": EYE * 2}, "images: every embedding must be finite and of length 1"),
        ({"titles": EYE[:, :3]}, "titles: every embedding must be finite"),
        ({"titles": np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]}, "must be of one width; got 4 and 3"),
        ({"owners": np.array([0, 1, 2, 4])}, "owners must be rows of the 4 images, or -1; got 0 to 4"),
        ({"owners": np.array([0, 1, 2])}, "labels must be 4 integers"),
        ({"title_groups": np.array([0, 1])}, "title_groups must be 4 integers"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"images": EYE, "titles": EYE, "owners": np.arange(4)} | change
    with pytest.raises(DataError, match=message):
        compute_cross_modal(**arguments)
