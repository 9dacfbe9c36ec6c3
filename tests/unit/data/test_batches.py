"""Draws: what the batches of an epoch hold and how many there are."""

from collections import Counter

import numpy as np
import pytest

from productrec.data.batches import draw_balanced_batches, draw_present, draw_shuffled_batches


def build_labels(*counts: int) -> np.ndarray:
    """Class 0 has counts[0] rows, class 1 counts[1], and so on, in mixed order."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(9).permutation(labels)


EVEN = build_labels(*[8] * 12)
UNEVEN = build_labels(1, 2, 3, 5, 8, 13, 21, 34, 3, 7)


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
