"""The sampler: seed and epoch alone decide its batches, and each rank has its slice of them."""

import hashlib
import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from productrec.data.samplers import CLASS_POWERS, Draw, EpochSampler, check_batch
from productrec.errors import DataError, RecipeError


def build_labels(*counts: int) -> np.ndarray:
    """Class 0 has counts[0] rows, class 1 counts[1], and so on, in mixed order."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(9).permutation(labels)


def list_rows(sampler: EpochSampler) -> list[list[Draw]]:
    return list(sampler)


EVEN = build_labels(*[8] * 12)
UNEVEN = build_labels(1, 2, 3, 5, 8, 13, 21, 34, 3, 7)


# ---------------------------------------------------------------- the sampler


@pytest.mark.parametrize("images_per_class", [4, None])
def test_seed_and_epoch_alone_decide_the_batches(images_per_class: int | None) -> None:
    def build(seed: int = 1, epoch: int = 0) -> list[list[Draw]]:
        sampler = EpochSampler(UNEVEN, batch_size=16, images_per_class=images_per_class, seed=seed)
        sampler.epoch = epoch
        return list_rows(sampler)

    assert build() == build()
    np.random.seed(4)
    assert build(epoch=3) == build(epoch=3)
    as_rows = [[[row for _, row, _ in batch] for batch in batches] for batches in (build(), build(2), build(1, 1))]
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
    assert len(rest) == len(whole) == len(list_rows(whole)) >= len(UNEVEN) // 16


@pytest.mark.parametrize("images_per_class", [4, None])
def test_the_epoch_travels_with_the_row(images_per_class: int | None) -> None:
    sampler = EpochSampler(EVEN, batch_size=16, images_per_class=images_per_class, seed=1)
    sampler.epoch = 5
    for batch in sampler:
        assert all(epoch == 5 and type(row) is int and 0 <= row < len(EVEN) for epoch, row, _ in batch)


@pytest.mark.parametrize("options", [{"images_per_class": 4}, {"images_per_class": None, "class_power": 0.0}])
@pytest.mark.parametrize("first", [0, 3])
def test_a_row_that_stands_again_in_an_epoch_is_told_apart(options: dict[str, Any], first: int) -> None:
    sampler = EpochSampler(UNEVEN, batch_size=16, seed=1, **options)
    whole = list_rows(sampler)
    draws = [draw for batch in whole for draw in batch]
    assert len(set(draws)) == len(draws)
    seen = Counter[int]()
    for _, row, occurrence in draws:
        assert occurrence == seen[row]
        seen[row] += 1
    assert max(seen.values()) > 1
    sampler.first_batch = first
    assert list_rows(sampler) == whole[first:]  # counted from the epoch's first batch on, also by a resume


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


def test_the_sampler_draws_from_the_category_of_the_first_class() -> None:
    sampler = EpochSampler(
        EVEN, batch_size=16, images_per_class=4, seed=0, categories=np.arange(12) // 6, category_share=1.0
    )
    for epoch in range(10):
        sampler.epoch = epoch
        (first, *_) = list_rows(sampler)
        assert len({int(EVEN[row]) // 6 for _, row, _ in first}) == 1
        assert len({int(EVEN[row]) for _, row, _ in first}) == 4


@pytest.mark.parametrize(
    ("categories", "text"),
    [
        (None, "category_share needs classes that share a category"),
        (np.full(12, -1), "category_share needs classes that share a category"),
        (np.arange(12), "category_share needs classes that share a category"),
        (np.zeros(11, np.int64), "one code a class; got 11 for 12 classes"),
    ],
)
def test_categories_that_are_none_are_refused(categories: np.ndarray | None, text: str) -> None:
    settings: dict[str, Any] = {"batch_size": 16, "images_per_class": 4, "seed": 0, "categories": categories}
    EpochSampler(EVEN, **settings)
    with pytest.raises(DataError, match=text):
        EpochSampler(EVEN, **settings, category_share=0.5)


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("images_per_class", [4, None])
def test_weights_shorten_an_epoch_and_leave_whole_batches(images_per_class: int | None) -> None:
    weights = np.where(np.arange(len(EVEN)) % 3 == 0, 0.25, 1.0)
    sampler = EpochSampler(EVEN, batch_size=16, images_per_class=images_per_class, seed=1, weights=weights)
    assert len(sampler) == (-(-int(weights.sum()) // 16) if images_per_class else int(weights.sum()) // 16)
    counts: Counter[int] = Counter()
    for epoch in range(200):
        sampler.epoch = epoch
        batches = list_rows(sampler)
        assert len(batches) == len(sampler)
        assert {len(batch) for batch in batches} == {16}
        counts.update(row for batch in batches for _, row, _ in batch)
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
    classes = [[int(UNEVEN[row]) for _, row, _ in batch[::4]] for batch in list_rows(sampler)]
    assert all(7 not in batch for batch in classes)
    # The first class's near one stands behind it, where it has images.
    assert sum((batch[0] + 1) % 10 == batch[1] for batch in classes) >= len(classes) // 2


@pytest.mark.parametrize(
    "weights", [np.full(96, 1.5), np.full(96, -0.1), np.ones(95), np.full(96, np.nan), np.zeros(96)]
)
def test_weights_that_are_none_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(DataError, match="weights"):
        EpochSampler(EVEN, batch_size=16, images_per_class=4, seed=0, weights=weights)


# ---------------------------------------------------------------- orders that runs were started with


@pytest.mark.parametrize(
    ("settings", "digest"),
    [
        ({"images_per_class": None}, "9bfa391e353b84de"),
        ({"images_per_class": 4}, "322222aa7d70a63f"),
        ({"images_per_class": 4, "hard_share": 0.67}, "8a50d48e3e4455c6"),
        ({"images_per_class": 4, "weights": np.where(UNEVEN == 7, 0.5, 1.0)}, "c39c1366cbe9515f"),
    ],
)
def test_the_order_of_this_version_stays(settings: dict[str, Any], digest: str) -> None:
    sampler = EpochSampler(UNEVEN, batch_size=16, seed=11, **settings)
    sampler.near_classes = np.array([[(c + 1) % 10, (c + 3) % 10] for c in range(10)])
    sampler.epoch = 2
    rows = np.array([row for batch in sampler for _, row, _ in batch], dtype="<i8")
    assert (
        hashlib.sha256(rows.tobytes()).hexdigest()[:16] == digest
    )  # else ORDER must change, and a stopped run is refused


# ---------------------------------------------------------------- mixed batches


def is_pk(batch: list[Draw]) -> bool:
    return set(Counter(int(EVEN[row]) for _, row, _ in batch).values()) == {4}


def test_a_share_of_the_batches_are_pk_ones() -> None:
    shares, places = [], Counter[int]()
    sampler = EpochSampler(EVEN, batch_size=16, images_per_class=4, seed=1, pk_share=0.4)
    for epoch in range(100):
        sampler.epoch = epoch
        batches = list_rows(sampler)
        assert [len(batch) for batch in batches] == [16] * 6
        pk = [is_pk(batch) for batch in batches]
        assert sum(pk) in (2, 3)  # 0.4 of 6
        shares.append(sum(pk))
        places.update(np.flatnonzero(pk).tolist())
        rows = [row for batch, here in zip(batches, pk, strict=True) if not here for _, row, _ in batch]
        assert len(set(rows)) == len(rows)
    assert 2.2 < np.mean(shares) < 2.6
    assert set(places) == set(range(6))
    assert max(places.values()) < 2.5 * min(places.values())


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 3), (1.0, 6)])
def test_a_share_that_comes_out_even_always_holds(share: float, count: int) -> None:
    sampler = EpochSampler(EVEN, batch_size=16, images_per_class=4, seed=1, pk_share=share)
    for epoch in range(10):
        sampler.epoch = epoch
        assert sum(map(is_pk, list_rows(sampler))) == count
    few = EpochSampler(build_labels(3, 2), batch_size=8, images_per_class=2, seed=0, pk_share=share)
    assert len(list_rows(few)) == len(few) == 1


# ---------------------------------------------------------------- every order there is


ORDERS: dict[str, dict[str, Any]] = {
    "pk": {"images_per_class": 4},
    "shuffle": {"images_per_class": None},
    "balanced": {"images_per_class": None, "class_power": CLASS_POWERS["balanced"]},
    "square_root": {"images_per_class": None, "class_power": CLASS_POWERS["square_root"]},
    "mixed": {"images_per_class": 4, "pk_share": 0.5},
    "categories": {"images_per_class": 4, "categories": np.arange(10) // 4, "category_share": 0.67},
    "weights": {"images_per_class": None, "class_power": 0.0, "weights": np.where(UNEVEN == 7, 0.5, 1.0)},
}


def build(order: str, seed: int = 1, epoch: int = 0, **others: Any) -> EpochSampler:
    sampler = EpochSampler(UNEVEN, batch_size=16, seed=seed, **ORDERS[order], **others)
    sampler.epoch = epoch
    return sampler


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_comes_from_seed_and_epoch_and_resumes(order: str) -> None:
    whole = list_rows(build(order, epoch=3))
    assert len(whole) == len(build(order))
    assert {len(batch) for batch in whole} == {16}
    np.random.seed(4)
    again = build(order)
    first = list_rows(again)
    again.epoch = 3
    for done in (0, 2, len(whole)):
        again.first_batch = done
        assert list_rows(again) == whole[done:]
    as_rows = [
        [[row for _, row, _ in batch] for batch in batches] for batches in (first, whole, list_rows(build(order, 2)))
    ]
    assert as_rows[0] != as_rows[1]
    assert as_rows[0] != as_rows[2]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("world_size", [2, 8])
def test_the_slices_of_all_ranks_make_up_the_batches_of_one(order: str, world_size: int) -> None:
    ranks = [list_rows(build(order, epoch=2, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(batch) for rank in ranks for batch in rank} == {16 // world_size}
    together = [list(itertools.chain(*slices)) for slices in zip(*ranks, strict=True)]
    assert together == list_rows(build(order, epoch=2))
    late = build(order, epoch=2, rank=1, world_size=world_size)
    late.first_batch = 2
    assert list_rows(late) == ranks[1][2:]
    assert len(late) == len(together)


@pytest.mark.parametrize(
    ("batch_size", "images_per_class", "world_size", "mend"), [(64, None, 3, 63), (64, 4, 3, 60), (2, None, 4, 4)]
)
def test_a_batch_that_ranks_cannot_share_evenly_is_refused(
    batch_size: int, images_per_class: int | None, world_size: int, mend: int
) -> None:
    text = f"world_size must divide batch_size; got {world_size} and {batch_size}. Use a batch_size of {mend}."
    with pytest.raises(RecipeError, match=text):
        EpochSampler(
            EVEN, batch_size=batch_size, images_per_class=images_per_class, seed=0, rank=1, world_size=world_size
        )
    check_batch(mend, images_per_class, world_size)


def test_a_rank_that_is_none_and_a_batch_that_is_never_full_are_refused() -> None:
    for rank in (-1, 2):
        with pytest.raises(RecipeError, match="rank must be from 0 to 1"):
            EpochSampler(EVEN, batch_size=16, images_per_class=4, seed=0, rank=rank, world_size=2)
    with pytest.raises(DataError, match="got 5 images an epoch and a batch_size of 16"):
        EpochSampler(EVEN[:5], batch_size=16, images_per_class=None, seed=0, rank=0, world_size=2)
    EpochSampler(EVEN[:5], batch_size=16, images_per_class=None, seed=0)
