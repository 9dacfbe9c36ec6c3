"""Folds: groups whole, classes spread, the same every time; class-disjoint splits."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from productrec.data.curation.folds import assign_folds, assign_table_folds, chain_equal, connect_rows, join_groups
from productrec.data.table import IMAGE_COLUMNS, build_frame
from productrec.errors import DataError


def draw(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    groups = generator.integers(count // 2, size=count)
    return generator.integers(classes, size=count // 2)[groups], groups


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1), st.integers(2, 4), st.integers(0, 9))
def test_groups_stay_whole_and_every_fold_is_used(rows: list[tuple[int, int]], count: int, seed: int) -> None:
    labels, groups = np.array(rows).T
    if len(set(groups.tolist())) < count:
        with pytest.raises(DataError, match="count must be 2 to the number of groups"):
            assign_folds(labels, groups, count, seed)
        return
    found = assign_folds(labels, groups, count, seed)
    assert set(found.folds.tolist()) == set(range(count))
    for group in set(groups.tolist()):
        assert len(set(found.folds[groups == group].tolist())) == 1
    for label in set(labels.tolist()):
        spread = len(set(groups[labels == label].tolist()))
        assert (label in found.small_classes) == (spread < count)
    np.testing.assert_array_equal(found.folds, assign_folds(labels, groups, count, seed).folds)


def test_classes_and_sizes_are_even() -> None:
    labels, groups = draw(6000, 20)
    found = assign_folds(labels, groups, 5, 3)
    assert not found.small_classes
    sizes = np.bincount(found.folds)
    assert sizes.max() - sizes.min() <= 3
    table = np.zeros((20, 5), int)
    np.add.at(table, (labels, found.folds), 1)
    assert (table.max(axis=1) - table.min(axis=1)).max() <= 2


def test_another_seed_gives_other_folds() -> None:
    labels, groups = draw(300, 5)
    assert (assign_folds(labels, groups, 5, 0).folds != assign_folds(labels, groups, 5, 1).folds).any()


def test_a_small_class_is_told_and_still_dealt() -> None:
    labels = np.array([7] * 2 + [8] * 9 + [9] * 9)
    groups = np.array([*range(11), *[50] * 9])
    found = assign_folds(labels, groups, 3, 0)
    assert found.small_classes == (7, 9)  # two images; nine images of one listing
    assert len(set(found.folds[:2].tolist())) == 2
    assert set(found.folds[2:11].tolist()) == {0, 1, 2}


def test_a_group_of_several_classes_is_dealt_by_all_of_them() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    folds = assign_folds(labels, groups, 3, 0).folds
    assert sorted(folds[[0, 3, 6]].tolist()) == [0, 1, 2]


def test_rows_without_group_stand_alone() -> None:
    groups = pd.Series(["a", None, None, "a"], dtype="str").to_numpy()
    np.testing.assert_array_equal(join_groups(groups), [0, 1, 2, 0])


def test_listings_and_duplicates_are_joined() -> None:
    listings = np.array(["x", "x", "y", "z", None], dtype=object)
    np.testing.assert_array_equal(join_groups(listings, np.array([0, 1, 1, 3, 3])), [0, 0, 0, 3, 3])


@pytest.mark.parametrize("groupings", [(), (np.zeros(2), np.zeros(3))])
def test_groupings_of_unlike_lengths_are_refused(groupings: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(DataError, match="groupings must be of one length"):
        join_groups(*groupings)


def test_labels_and_groups_of_unlike_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="every image must have a label and a group; got 3 and 2"):
        assign_folds(np.zeros(3, int), np.zeros(2, int), 2, 0)


def test_equal_codes_are_chained_and_negative_ones_left() -> None:
    assert chain_equal(np.array([2, -1, 2, -1, 2])).tolist() == [[0, 2], [2, 4]]


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_a_walk(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pairs = generator.integers(60, size=(40, 2))
    known = list(range(60))
    for _ in range(60):
        for left, right in pairs.tolist():
            known[left] = known[right] = min(known[left], known[right])
    np.testing.assert_array_equal(connect_rows(60, pairs), known)


# ---------------------------------------------------------------- a table's folds


def build(*rows: tuple[str, str, int | None], status: str = "ok") -> pd.DataFrame:
    ids, splits, labels = zip(*rows, strict=True)
    return build_frame(
        IMAGE_COLUMNS,
        {"image_id": list(ids), "split": list(splits), "label": list(labels), "status": [status] * len(rows)},
    )


def test_folds_go_to_readable_labelled_training_images() -> None:
    rows = [(f"i{place}", "train", place % 3) for place in range(30)] + [("v", "val", 1), ("lone", "train", 8)]
    table = build(*rows)
    table.loc[0, "status"] = "broken"
    dealt, findings = assign_table_folds(table, 5, seed=0)
    assert dealt["fold"].isna().tolist() == [True] + [False] * 29 + [True, False]
    assert sorted(dealt["fold"].dropna().unique().tolist()) == [0, 1, 2, 3, 4]
    assert findings == ["1 (8) classes have fewer images or groups than 5 folds; some folds lack them."]
