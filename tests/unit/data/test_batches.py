"""Draws: what the batches of an epoch hold and how many there are."""

from collections import Counter

import numpy as np
import pytest

from productrec.data.batches import draw_balanced_batches, draw_pk_batches, draw_present, draw_shuffled_batches


def build_labels(*counts: int) -> np.ndarray:
    """Class 0 has counts[0] rows, class 1 counts[1], and so on, in mixed order."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(9).permutation(labels)


def draw(labels: np.ndarray, batch_size: int, images_per_class: int, seed: int = 0) -> list[np.ndarray]:
    return draw_pk_batches(labels, batch_size, images_per_class, np.random.default_rng(seed))


EVEN = build_labels(*[8] * 12)
UNEVEN = build_labels(1, 2, 3, 5, 8, 13, 21, 34, 3, 7)


# ---------------------------------------------------------------- PK batches


@pytest.mark.parametrize("labels", [EVEN, UNEVEN])
@pytest.mark.parametrize(("batch_size", "images_per_class"), [(16, 4), (8, 2), (24, 3), (20, 2)])
def test_a_batch_holds_p_distinct_classes_times_k(labels: np.ndarray, batch_size: int, images_per_class: int) -> None:
    batches = draw(labels, batch_size, images_per_class)
    assert len(batches) == len(labels) // batch_size
    for batch in batches:
        counts = Counter(labels[batch].tolist())
        assert len(counts) == batch_size // images_per_class
        assert set(counts.values()) == {images_per_class}


def test_an_epoch_sees_every_row_once_where_that_is_possible() -> None:
    seen = Counter(np.concatenate(draw(EVEN, 16, 4)).tolist())
    assert len(seen) >= 0.9 * len(EVEN)
    assert max(seen.values()) <= 2
    together = Counter(np.concatenate([np.concatenate(draw(EVEN, 16, 4, seed)) for seed in range(40)]).tolist())
    assert set(together) == set(range(len(EVEN)))
    assert min(together.values()) >= 30
    assert max(together.values()) <= 50


def test_large_classes_are_not_starved_by_small_ones() -> None:
    labels = build_labels(2, 2, 2, 2, 40, 40, 40, 40)
    counts = Counter(labels[np.concatenate(draw(labels, 16, 4))].tolist())
    assert all(counts[label] >= 24 for label in (4, 5, 6, 7))


def test_a_single_image_repeats_and_a_larger_class_does_not() -> None:
    labels = build_labels(1, 2, 3, 5, 6, 7)
    for seed in range(20):
        for batch in draw(labels, 24, 4, seed):
            for label in range(6):
                rows = batch[labels[batch] == label]
                assert len(rows) == 4
                assert len(set(rows.tolist())) == min(4, int((labels == label).sum()))


def test_a_class_whose_size_k_does_not_divide_never_puts_an_image_beside_itself() -> None:
    labels = build_labels(5, 9, 13)
    for seed in range(50):
        for batch in draw(labels, 12, 4, seed):
            assert len(set(batch.tolist())) == 12


def test_fewer_classes_than_p_stand_in_a_batch_more_than_once() -> None:
    labels = build_labels(10, 6)
    batches = draw(labels, 16, 2)
    assert len(batches) == 1
    counts = Counter(labels[batches[0]].tolist())
    assert set(counts) == {0, 1}
    assert sum(counts.values()) == 16
    assert all(count % 2 == 0 for count in counts.values())
    only = draw(np.zeros(5, np.int64), 8, 2)
    assert [len(batch) for batch in only] == [8]


def test_fewer_rows_than_a_batch_make_one_whole_batch() -> None:
    batches = draw(build_labels(1, 1, 1), 8, 2)
    assert [len(batch) for batch in batches] == [8]


def test_class_positions_need_not_be_dense() -> None:
    labels = np.array([7, 7, 1000, 1000, 3, 3])
    for batch in draw(labels, 4, 2):
        assert len(set(labels[batch].tolist())) == 2


# ---------------------------------------------------------------- shuffled batches


def test_shuffled_batches_hold_every_row_at_most_once() -> None:
    batches = draw_shuffled_batches(35, 8, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [8] * 4
    assert len(set(np.concatenate(batches).tolist())) == 32
    (small,) = draw_shuffled_batches(5, 8, np.random.default_rng(0))
    assert sorted(small.tolist()) == [0, 1, 2, 3, 4]


# ---------------------------------------------------------------- batches that are balanced over classes


def balance(labels: np.ndarray, batch_size: int, power: float, seed: int = 0) -> list[np.ndarray]:
    return draw_balanced_batches(labels, batch_size, np.random.default_rng(seed), class_power=power)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_class_is_drawn_by_its_size_to_a_power(power: float, seed: int) -> None:
    batches = balance(UNEVEN, 8, power, seed)
    assert [len(batch) for batch in batches] == [8] * (len(UNEVEN) // 8)
    sizes = np.bincount(UNEVEN).astype(float)
    expected = sizes**power / (sizes**power).sum() * len(batches) * 8
    counts = np.bincount(UNEVEN[np.concatenate(batches)], minlength=len(sizes))
    assert (np.abs(counts - expected) < 1).all()
    for batch in batches:
        here = np.bincount(UNEVEN[batch], minlength=len(sizes))
        assert (np.abs(here - counts / len(batches)) < 1).all()  # a class is spread evenly over the batches


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_images_are_dealt_before_any_repeats_and_stand_in_a_batch_once(power: float) -> None:
    for seed in range(20):
        batches = balance(UNEVEN, 8, power, seed)
        seen = np.bincount(np.concatenate(batches), minlength=len(UNEVEN))
        for label in np.unique(UNEVEN):
            times = seen[label == UNEVEN]
            assert times.max() - times.min() <= 1
        assert seen.max() <= len(batches)
        assert all(len(set(batch.tolist())) == 8 for batch in batches)


def test_the_rounding_of_draws_favours_no_class() -> None:
    labels = build_labels(1, 1, 9, 30)
    counts = sum(np.bincount(labels[np.concatenate(balance(labels, 10, 0.5, seed))]) for seed in range(600))
    roots = np.sqrt([1, 1, 9, 30])
    np.testing.assert_allclose(np.array(counts) / 600, roots / roots.sum() * 40, atol=0.1)


def test_a_class_of_one_image_repeats_as_little_as_it_can() -> None:
    labels = build_labels(1, 31)
    for seed in range(10):
        batches = balance(labels, 8, 0.0, seed)
        assert [int((labels[batch] == 0).sum()) for batch in batches] == [4] * 4
        for batch in batches:
            assert len(set(batch.tolist())) == 5  # the one image four times, and four others
    (one,) = balance(np.zeros(1, np.int64), 4, 0.0)
    assert one.tolist() == [0]
    assert sorted(np.concatenate(balance(np.zeros(9, np.int64), 3, 0.5)).tolist()) == list(range(9))


def test_more_classes_than_an_epoch_has_room_for() -> None:
    labels = np.arange(50)
    batches = balance(labels, 8, 0.0)
    assert len(set(np.concatenate(batches).tolist())) == 48
    small = balance(build_labels(1, 4), 8, 0.0)
    assert [len(batch) for batch in small] == [5]


def test_a_class_stands_anywhere_in_a_balanced_batch() -> None:
    first = Counter(int(EVEN[batch[0]]) for seed in range(60) for batch in balance(EVEN, 16, 0.0, seed))
    assert set(first) == set(range(12))
    assert max(first.values()) < 3 * min(first.values())


# ---------------------------------------------------------------- near classes, and those of one category


FIVE_CATEGORIES = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 4, -1, -1])


def list_classes(batches: list[np.ndarray], images_per_class: int = 4) -> list[list[int]]:
    return [[int(EVEN[row]) for row in batch[::images_per_class]] for batch in batches]


def test_near_classes_fill_their_share_of_a_batch() -> None:
    near = np.array([[(c + 1) % 12, (c + 2) % 12, (c + 3) % 12] for c in range(12)])
    generator = np.random.default_rng(0)
    batches = draw_pk_batches(EVEN, 16, 4, generator, near_classes=near, hard_share=0.67)
    assert len(batches) == len(EVEN) // 16
    close = 0
    for batch in batches:
        classes = [int(EVEN[row]) for row in batch[::4]]
        assert len(set(classes)) == 4
        close += sum((other - classes[0]) % 12 in (1, 2, 3) for other in classes[1:])
    assert close >= 2 * len(batches) * 0.8  # two of three, unless a near class has no images left
    seen = Counter(np.concatenate(batches).tolist())
    assert len(seen) >= 0.8 * len(EVEN)
    assert max(seen.values()) <= 2


def test_categories_fill_their_share_of_a_batch() -> None:
    shared, full = 0, 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        batches = draw_pk_batches(EVEN, 16, 4, generator, categories=FIVE_CATEGORIES, category_share=0.67)
        assert len(batches) == 6
        seen = Counter(np.concatenate(batches).tolist())
        assert max(seen.values()) <= 2
        first = list_classes(batches)[0]  # every class has its images left
        code = FIVE_CATEGORIES[first[0]]
        kin = [c for c in first[1:] if code >= 0 and FIVE_CATEGORIES[c] == code]
        size = int((code == FIVE_CATEGORIES).sum()) if code >= 0 else 1
        assert len(set(first)) == 4
        assert len(kin) >= min(2, size - 1)
        assert set(first[1 : 1 + min(2, size - 1)]) <= set(kin)
        shared += len(kin)
        full += len(seen) >= 0.8 * len(EVEN)
    assert shared >= 30
    assert full >= 25


def test_a_share_of_no_classes_changes_nothing() -> None:
    plain = draw(EVEN, 16, 4, seed=5)
    other = draw_pk_batches(EVEN, 16, 4, np.random.default_rng(5), categories=FIVE_CATEGORIES, category_share=0.0)
    assert np.array_equal(plain, other)
    for alone in (np.full(12, -1), np.where(np.arange(12) % 3 == 0, np.arange(12), -1)):  # -1 is no category
        lonely = draw_pk_batches(EVEN, 16, 4, np.random.default_rng(5), categories=alone, category_share=1.0)
        assert np.array_equal(plain, lonely)


def test_near_classes_go_before_those_of_the_category() -> None:
    near = np.array([[(c + 6) % 12] for c in range(12)])
    categories = np.arange(12) % 2  # the near one is of the same category
    for seed in range(20):
        (classes, *_) = list_classes(
            draw_pk_batches(
                EVEN,
                16,
                4,
                np.random.default_rng(seed),
                near_classes=near,
                hard_share=0.34,
                categories=(np.arange(12) >= 6).astype(int) if seed % 2 else categories,
                category_share=0.67,
            )
        )
        assert classes[1] == (classes[0] + 6) % 12
        kin = [c for c in classes[1:] if (c // 6 == classes[0] // 6 if seed % 2 else c % 2 == classes[0] % 2)]
        assert len(set(classes)) == 4
        assert len(kin) >= 2


# ---------------------------------------------------------------- weights


def test_a_row_is_there_as_often_as_it_weighs() -> None:
    weights = np.concatenate([np.ones(20), np.full(20, 0.5), np.full(20, 0.1), np.zeros(5), np.full(10, 0.75)])
    seen = np.zeros(len(weights))
    for seed in range(2000):
        rows = draw_present(weights, np.random.default_rng(seed))
        assert len(rows) in (39, 40)  # the sum is 39.5
        assert len(set(rows.tolist())) == len(rows)
        seen[rows] += 1
    assert (seen[:20] == 2000).all()
    assert (seen[60:65] == 0).all()
    np.testing.assert_allclose(seen[20:60] / 2000, weights[20:60], atol=0.05)
    np.testing.assert_allclose(seen[65:] / 2000, 0.75, atol=0.05)
