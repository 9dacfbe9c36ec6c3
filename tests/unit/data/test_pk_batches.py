"""PK batches: what an epoch of them holds, which classes meet in a batch, and how often an image is drawn."""

from collections import Counter

import numpy as np
import pytest

from productrec.data.pk_batches import PKPlan


def build_labels(*counts: int) -> np.ndarray:
    """Class 0 has counts[0] rows, class 1 counts[1], and so on, in mixed order."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(9).permutation(labels)


def draw(labels: np.ndarray, batch_size: int, images_per_class: int, seed: int = 0, **options) -> np.ndarray:
    return PKPlan(labels, batch_size, images_per_class).draw(np.random.default_rng(seed), **options)


EVEN = build_labels(*[8] * 12)
UNEVEN = build_labels(1, 2, 3, 5, 8, 13, 21, 34, 3, 7)
# Where the draws of earlier versions left classes or images out; the shares of an epoch's images that they saw.
MANY_OF_FIVE = build_labels(*[5] * 300)  # 76 %, and 86 % of the classes
SINGLES = build_labels(*[1] * 500, *[20] * 50)  # 49 %, and 54 % of the classes
ONE_LARGE = build_labels(5000, *[5] * 40)  # 10 %, the small classes 24 times each
KIN = {"near_classes": np.stack([(np.arange(2000) + step) % 2000 for step in (1, 2, 3)], axis=1), "hard_share": 0.5}
HOW = [{}, KIN]


# ---------------------------------------------------------------- an epoch


@pytest.mark.parametrize("options", HOW, ids=["plain", "near"])
@pytest.mark.parametrize(
    ("labels", "images"),
    [(MANY_OF_FIVE, 0.84), (SINGLES, 1.0), (ONE_LARGE, 1.0), (EVEN, 1.0), (UNEVEN, 0.9)],
    ids=["many of five", "singles", "one large", "even", "uneven"],
)
def test_an_epoch_sees_every_class_and_nearly_every_image(labels: np.ndarray, images: float, options: dict) -> None:
    for seed in range(3):
        batches = draw(labels, 64 if len(labels) > 200 else 16, 4, seed, **options)
        assert len(set(labels[batches].ravel().tolist())) == len(set(labels.tolist()))
        assert len(set(batches.ravel().tolist())) >= images * len(labels)
        assert min(len(set(labels[batch].tolist())) for batch in batches) >= 2


def test_small_classes_are_repeated_as_little_as_a_large_one_lets_them() -> None:
    plan = PKPlan(ONE_LARGE, 64, 4)
    assert plan.left_out == 0
    rows = np.concatenate([plan.draw(np.random.default_rng(seed)).ravel() for seed in range(20)])
    counts = np.bincount(rows, minlength=len(ONE_LARGE)) / 20
    assert counts[ONE_LARGE == 0].mean() == pytest.approx(1.0, abs=0.02)
    assert counts[ONE_LARGE > 0].mean() == pytest.approx(1.88, abs=0.02)  # 24 in earlier versions


@pytest.mark.parametrize(("repeats", "batches", "left_out"), [(10.0, 12, 0.855), (2.5, 3, 0.963), (100.0, 84, 0.0)])
def test_what_has_no_room_beside_repeated_classes_is_told(repeats: float, batches: int, left_out: float) -> None:
    labels = build_labels(5000, 5)
    plan = PKPlan(labels, 64, 4, class_repeats=repeats)
    assert plan.batch_count == batches
    assert plan.left_out == pytest.approx(left_out, abs=0.001)
    drawn = plan.draw(np.random.default_rng(0))
    assert all(len(set(labels[batch].tolist())) == 2 for batch in drawn)
    assert np.bincount(drawn.ravel(), minlength=5005)[labels == 1].mean() <= 5 * repeats


def test_an_image_is_drawn_once_an_epoch_on_average() -> None:
    counts = np.zeros(len(MANY_OF_FIVE))
    for seed in range(300):
        counts += np.bincount(draw(MANY_OF_FIVE, 64, 4, seed).ravel(), minlength=len(counts))
    counts /= 300
    assert counts.mean() == pytest.approx(24 * 64 / 1500)
    assert counts.std() < 0.04  # of 300 draws with a spread of about half each


@pytest.mark.parametrize("labels", [MANY_OF_FIVE, build_labels(*[40] * 30), build_labels(*[2] * 200)])
def test_an_image_is_drawn_as_often_as_it_weighs(labels: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    weights = np.where(generator.random(len(labels)) < 0.5, 0.5, 1.0)
    plan, counts = PKPlan(labels, 64, 4, weights=weights), np.zeros(len(labels))
    for seed in range(200):
        counts += np.bincount(plan.draw(np.random.default_rng(seed)).ravel(), minlength=len(counts))
    assert counts[weights == 0.5].mean() / counts[weights == 1].mean() == pytest.approx(0.5, abs=0.01)


def test_rows_of_no_weight_are_never_drawn() -> None:
    weights = np.where(UNEVEN == 7, 0.0, 1.0)
    rows = PKPlan(UNEVEN, 16, 4, weights=weights).draw(np.random.default_rng(0))
    assert 7 not in UNEVEN[rows]


@pytest.mark.parametrize("seed", range(60))
def test_classes_are_spread_over_the_batches_and_images_over_their_groups(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, generator.choice([3, 10, 60, 400]), generator.integers(1, 60))
    if seed % 3 == 0:
        sizes[0] = generator.integers(1, 3000)
    labels = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    images, classes = int(generator.integers(1, 6)), int(generator.integers(1, 12))
    categories = {"categories": np.arange(len(sizes)) // 3 - seed % 2, "category_share": 0.6}
    batches = draw(labels, classes * images, images, seed, **({}, KIN, categories, KIN | categories)[seed % 4])
    groups = labels[batches].reshape(len(batches), classes, images)
    assert (groups == groups[..., :1]).all()
    per_batch = np.stack([np.bincount(batch, minlength=len(sizes)) for batch in groups[..., 0]])
    total = per_batch.sum(axis=0)
    assert (total >= 1).all()
    assert (per_batch.max(axis=0) - per_batch.min(axis=0) <= 1).all()
    if len(sizes) > 1 and classes > 1:
        assert ((per_batch > 0).sum(axis=1) >= 2).all()
    for group in batches.reshape(-1, images):
        assert len(set(group.tolist())) == min(images, sizes[labels[group[0]]])


def test_classes_meet_by_chance() -> None:
    """Any two of twelve classes are in a batch together about equally often."""
    together = np.zeros((12, 12))
    for seed in range(200):
        for batch in draw(EVEN, 16, 4, seed):
            present = np.unique(EVEN[batch])
            together[np.ix_(present, present)] += 1
    pairs = together[np.triu_indices(12, 1)]
    assert pairs.std() / pairs.mean() < 0.12


# ---------------------------------------------------------------- a batch


@pytest.mark.parametrize("labels", [EVEN, build_labels(3, 4, 3, 5, 6, 5, 4, 6, 3, 5)])
@pytest.mark.parametrize(("batch_size", "images_per_class"), [(16, 4), (8, 2), (24, 3), (20, 2)])
def test_a_batch_holds_p_distinct_classes_times_k(labels: np.ndarray, batch_size: int, images_per_class: int) -> None:
    batches = draw(labels, batch_size, images_per_class)
    assert len(batches) * batch_size >= len(labels)
    for batch in batches:
        counts = Counter(labels[batch].tolist())
        assert len(counts) == batch_size // images_per_class
        assert set(counts.values()) == {images_per_class}


def test_large_classes_are_not_starved_by_small_ones() -> None:
    labels = build_labels(2, 2, 2, 2, 40, 40, 40, 40)
    counts = Counter(labels[draw(labels, 16, 4)].ravel().tolist())
    assert all(counts[label] >= 40 for label in (4, 5, 6, 7))


def test_a_single_image_repeats_and_a_larger_class_does_not() -> None:
    labels = build_labels(1, 2, 3, 5, 6, 7)
    for seed in range(20):
        for batch in draw(labels, 24, 4, seed):
            for label in range(6):
                rows = batch[labels[batch] == label]
                assert len(rows) == 4
                assert len(set(rows.tolist())) == min(4, int((labels == label).sum()))


def test_a_class_whose_size_k_does_not_divide_never_puts_an_image_beside_itself() -> None:
    labels = build_labels(5, 9, 12)
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


# ---------------------------------------------------------------- near classes, and those of one category


FIVE_CATEGORIES = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 4, -1, -1])


def list_classes(batches: np.ndarray, images_per_class: int = 4) -> list[list[int]]:
    return [[int(EVEN[row]) for row in batch[::images_per_class]] for batch in batches]


def test_near_classes_fill_their_share_of_a_batch() -> None:
    near = np.array([[(c + 1) % 12, (c + 2) % 12, (c + 3) % 12] for c in range(12)])
    generator = np.random.default_rng(0)
    batches = PKPlan(EVEN, 16, 4).draw(generator, near_classes=near, hard_share=0.67)
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
        batches = PKPlan(EVEN, 16, 4).draw(generator, categories=FIVE_CATEGORIES, category_share=0.67)
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
    other = draw(EVEN, 16, 4, 5, categories=FIVE_CATEGORIES, category_share=0.0)
    assert np.array_equal(plain, other)
    for alone in (np.full(12, -1), np.where(np.arange(12) % 3 == 0, np.arange(12), -1)):  # -1 is no category
        for batch in draw(EVEN, 16, 4, 5, categories=alone, category_share=1.0):
            assert len(set(EVEN[batch].tolist())) == 4


def test_near_classes_go_before_those_of_the_category() -> None:
    near = np.array([[(c + 6) % 12] for c in range(12)])
    categories = np.arange(12) % 2  # the near one is of the same category
    for seed in range(20):
        (classes, *_) = list_classes(
            draw(
                EVEN,
                16,
                4,
                seed,
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
