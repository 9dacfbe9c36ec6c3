"""Cross-modal ranks against a stable sort in float64: ties, several titles, equal titles, missing sides, folds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from productrec.metrics.cross_modal import compute_cross_modal, compute_cross_modal_folds
from tests.property.metrics.test_metric_oracles import EXACT_ROWS, SEEDS


def rank_by_sorting(images, titles, owners, groups):
    """Best rank of each image's own titles and of each title's own images, by a loop over all pairs."""
    similarities = images.astype(np.float64) @ titles.astype(np.float64).T
    texts = [{groups[t] for t in range(len(titles)) if owners[t] == i} for i in range(len(images))]
    is_own = [[groups[t] in texts[i] for t in range(len(titles))] for i in range(len(images))]
    image_ranks, title_ranks = [], []
    for i in range(len(images)):
        order = sorted(range(len(titles)), key=lambda t: (-similarities[i, t], t))
        image_ranks.append(next((rank for rank, t in enumerate(order, start=1) if is_own[i][t]), 0))
    for t in range(len(titles)):
        order = sorted(range(len(images)), key=lambda i: (-similarities[i, t], i))
        rank = next((rank for rank, i in enumerate(order, start=1) if is_own[i][t]), 0)
        title_ranks.append(rank if owners[t] >= 0 else 0)
    return image_ranks, title_ranks


def draw_set(seed, image_count, title_count, group_count):
    generator = np.random.default_rng(seed)
    rows = EXACT_ROWS[generator.integers(0, len(EXACT_ROWS), image_count + title_count)]
    owners = generator.integers(-1, image_count, title_count)
    groups = np.arange(title_count) if group_count is None else generator.integers(0, group_count, title_count)
    return rows[:image_count], rows[image_count:], owners, groups


@settings(deadline=None, max_examples=120)
@given(
    seed=SEEDS,
    image_count=st.integers(1, 40),
    title_count=st.integers(1, 90),
    group_count=st.sampled_from([None, 1, 3, 30, 200]),
)
def test_ranks_are_those_of_a_stable_sort(seed, image_count, title_count, group_count):
    images, titles, owners, groups = draw_set(seed, image_count, title_count, group_count)
    given_groups = None if group_count is None else groups
    found = compute_cross_modal(images, titles, owners, title_groups=given_groups, tile=(64, 64), threads=1)
    image_ranks, title_ranks = rank_by_sorting(images, titles, owners, groups)
    assert found.image_ranks.tolist() == image_ranks
    assert found.title_ranks.tolist() == title_ranks


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, weighted=st.booleans())
def test_figures_are_those_of_the_ranks_repeated(seed, weighted):
    images, titles, owners, groups = draw_set(seed, 12, 40, 25)
    found = compute_cross_modal(images, titles, owners, title_groups=groups, threads=1)
    times = np.random.default_rng(seed).integers(0, 4, 12) if weighted else np.ones(12, int)
    figures = found.measure(times.astype(np.float64) if weighted else None)
    of_images = [rank for rank, times_ in zip(found.image_ranks, times, strict=True) for _ in range(times_) if rank]
    of_titles = [
        rank for rank, owner in zip(found.title_ranks, owners, strict=True) if owner >= 0 for _ in range(times[owner])
    ]
    total = 0.0
    for direction, ranks in (("image_to_title", of_images), ("title_to_image", of_titles)):
        if not ranks:
            assert np.isnan(figures[f"{direction}_recall@1"])
            continue
        for k in (1, 5, 10):
            assert figures[f"{direction}_recall@{k}"] == pytest.approx(np.mean(np.array(ranks) <= k))
            total += figures[f"{direction}_recall@{k}"]
        # VSE++ counts ranks from 0.
        assert figures[f"{direction}_median_rank"] == np.floor(np.median(np.array(ranks) - 1)) + 1
        assert figures[f"{direction}_mean_rank"] == pytest.approx(np.mean(ranks))
    if of_images and of_titles:
        assert figures["recall_sum"] == pytest.approx(total)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, fold_images=st.integers(1, 7))
def test_folds_are_sets_of_their_own(seed, fold_images):
    generator = np.random.default_rng(seed)
    images, titles = (EXACT_ROWS[generator.integers(0, len(EXACT_ROWS), count)] for count in (7, 21))
    owners = generator.permutation(np.repeat(np.arange(7), 3))
    folds = compute_cross_modal_folds(images, titles, owners, fold_images=fold_images, threads=1)
    assert len(folds.parts) == 7 // fold_images and folds.left_out == 7 % fold_images
    recalls = []
    for number, part in enumerate(folds.parts):
        start = number * fold_images
        own = np.flatnonzero((owners >= start) & (owners < start + fold_images))
        expected = rank_by_sorting(
            images[start : start + fold_images], titles[own], owners[own] - start, np.arange(len(own))
        )
        assert (part.image_ranks.tolist(), part.title_ranks.tolist()) == expected
        recalls.append(np.mean(np.array(expected[0]) == 1))
    assert folds.measure()["image_to_title_recall@1"] == pytest.approx(np.mean(recalls))
    once = np.ones(folds.count)
    assert folds.measure(once) == folds.measure()
