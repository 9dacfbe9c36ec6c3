"""Batches: what they hold, how many there are, and that seed and epoch alone decide them."""

from collections import Counter

import numpy as np
import pytest

from productrec.data.samplers import (
    EpochSampler,
    check_batch,
    draw_pk_batches,
    draw_present,
    draw_shuffled_batches,
)
from productrec.errors import DataError, RecipeError


def build_labels(*counts: int) -> np.ndarray:
    """Class 0 has counts[0] rows, class 1 counts[1], and so on, in mixed order."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(9).permutation(labels)


def draw(labels: np.ndarray, batch_size: int, images_per_class: int, seed: int = 0) -> list[np.ndarray]:
    return draw_pk_batches(labels, batch_size, images_per_class, np.random.default_rng(seed))


def list_rows(sampler: EpochSampler) -> list[list[tuple[int, int]]]:
    return list(sampler)


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


# ---------------------------------------------------------------- the sampler


@pytest.mark.parametrize("images_per_class", [4, None])
def test_seed_and_epoch_alone_decide_the_batches(images_per_class: int | None) -> None:
    def build(seed: int = 1, epoch: int = 0) -> list[list[tuple[int, int]]]:
        sampler = EpochSampler(UNEVEN, batch_size=16, images_per_class=images_per_class, seed=seed)
        sampler.epoch = epoch
        return list_rows(sampler)

    assert build() == build()
    np.random.seed(4)
    assert build(epoch=3) == build(epoch=3)
    as_rows = [[[row for _, row in batch] for batch in batches] for batches in (build(), build(2), build(1, 1))]
    assert as_rows[0] != as_rows[1]
    assert as_rows[0] != as_rows[2]


@pytest.mark.parametrize("images_per_class", [4, None])
@pytest.mark.parametrize("first", [0, 1, 3, 5])
def test_a_resume_gives_the_same_tail(images_per_class: int | None, first: int) -> None:
    whole = EpochSampler(UNEVEN, batch_size=16, images_per_class=images_per_class, seed=1)
    rest = EpochSampler(UNEVEN, batch_size=16, images_per_class=images_per_class, seed=1)
    whole.epoch = rest.epoch = 2
    rest.first_batch = first
    assert list_rows(rest) == list_rows(whole)[first:]
    assert len(rest) == len(whole) == len(list_rows(whole)) == len(UNEVEN) // 16


@pytest.mark.parametrize("images_per_class", [4, None])
def test_the_epoch_travels_with_the_row(images_per_class: int | None) -> None:
    sampler = EpochSampler(EVEN, batch_size=16, images_per_class=images_per_class, seed=1)
    sampler.epoch = 5
    for batch in sampler:
        assert all(epoch == 5 and type(row) is int and 0 <= row < len(EVEN) for epoch, row in batch)


def test_one_sampler_serves_many_epochs() -> None:
    sampler = EpochSampler(EVEN, batch_size=16, images_per_class=4, seed=1)
    first = list_rows(sampler)
    sampler.epoch = 1
    assert list_rows(sampler) != first
    sampler.epoch = 0
    assert list_rows(sampler) == first


@pytest.mark.parametrize(("batch_size", "images_per_class", "mend"), [(64, 5, 60), (3, 4, 4), (10, 4, 8)])
def test_a_batch_that_is_not_made_of_whole_classes_is_refused(
    batch_size: int, images_per_class: int, mend: int
) -> None:
    text = f"got {images_per_class} and {batch_size}. Use a batch_size of {mend}."
    with pytest.raises(RecipeError, match=text):
        EpochSampler(EVEN, batch_size=batch_size, images_per_class=images_per_class, seed=0)
    check_batch(mend, images_per_class)
    check_batch(batch_size, None)


@pytest.mark.parametrize("images_per_class", [4, None])
def test_no_rows_at_all_are_refused(images_per_class: int | None) -> None:
    with pytest.raises(DataError, match="labels must hold at least one row"):
        EpochSampler(np.array([], np.int64), batch_size=8, images_per_class=images_per_class, seed=0)


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


@pytest.mark.parametrize("images_per_class", [4, None])
def test_weights_shorten_an_epoch_and_leave_whole_batches(images_per_class: int | None) -> None:
    weights = np.where(np.arange(len(EVEN)) % 3 == 0, 0.25, 1.0)
    sampler = EpochSampler(EVEN, batch_size=16, images_per_class=images_per_class, seed=1, weights=weights)
    assert len(sampler) == int(weights.sum()) // 16
    counts: Counter[int] = Counter()
    for epoch in range(200):
        sampler.epoch = epoch
        batches = list_rows(sampler)
        assert len(batches) == len(sampler)
        assert {len(batch) for batch in batches} == {16}
        counts.update(row for batch in batches for _, row in batch)
    light = np.mean([counts[row] for row in range(0, len(EVEN), 3)])
    heavy = np.mean([counts[row] for row in range(len(EVEN)) if row % 3])
    assert 0.2 < light / heavy < 0.32
    sampler.epoch = 7
    whole = list_rows(sampler)
    sampler.first_batch = 2
    assert list_rows(sampler) == whole[2:]


def test_weights_of_one_change_nothing_and_zero_keeps_a_row_out() -> None:
    plain = EpochSampler(UNEVEN, batch_size=16, images_per_class=4, seed=3)
    ones = EpochSampler(UNEVEN, batch_size=16, images_per_class=4, seed=3, weights=np.ones(len(UNEVEN)))
    assert list_rows(plain) == list_rows(ones)
    weights = np.ones(len(UNEVEN))
    weights[UNEVEN == 7] = 0.0
    near = np.array([[(c + 1) % 10, 7] for c in range(10)])  # a class that is not there is no near class
    sampler = EpochSampler(UNEVEN, batch_size=16, images_per_class=4, seed=3, hard_share=0.67, weights=weights)
    sampler.near_classes = near
    classes = [[int(UNEVEN[row]) for _, row in batch[::4]] for batch in list_rows(sampler)]
    assert all(7 not in batch for batch in classes)
    # The first class's near one stands behind it, where it has images.
    assert sum((batch[0] + 1) % 10 == batch[1] for batch in classes) >= len(classes) // 2


@pytest.mark.parametrize(
    "weights", [np.full(96, 1.5), np.full(96, -0.1), np.ones(95), np.full(96, np.nan), np.zeros(96)]
)
def test_weights_that_are_none_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(DataError, match="weights"):
        EpochSampler(EVEN, batch_size=16, images_per_class=4, seed=0, weights=weights)
