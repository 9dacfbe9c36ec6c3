"""Hold-outs: shares of each class, whole groups, whole classes."""

import numpy as np
import pandas as pd
import pytest

from productrec.data.curation.hold_out import (
    hold_out_classes,
    hold_out_groups,
    hold_out_images,
    hold_out_validation,
    split_by_class,
)
from productrec.data.table import IMAGE_COLUMNS, build_frame
from productrec.errors import DataError


def build(*rows: tuple[str, str, int | None], status: str = "ok") -> pd.DataFrame:
    ids, splits, labels = zip(*rows, strict=True)
    return build_frame(
        IMAGE_COLUMNS,
        {"image_id": list(ids), "split": list(splits), "label": list(labels), "status": [status] * len(rows)},
    )


def many(per_class: dict[int, int], split: str = "train") -> pd.DataFrame:
    return build(*((f"{label}-{number}", split, label) for label, n in per_class.items() for number in range(n)))


# ---------------------------------------------------------------- images of each class


def held(images: pd.DataFrame, fraction: float, seed: int) -> set[str]:
    after = hold_out_images(images, fraction, seed)
    return set(after.loc[after["split"] == "val", "image_id"])


def test_each_class_gives_its_share_and_keeps_one() -> None:
    images = many({1: 10, 2: 5, 3: 4, 4: 1, 5: 2})
    after = hold_out_images(images, 0.1, 0)
    moved = after[after["split"] == "val"]["label"].value_counts().to_dict()
    assert moved == {1: 1, 2: 1}  # half an image of class 2 is rounded up, less than half of the others is none
    after = hold_out_images(images, 0.99, 0)
    assert after[after["split"] == "train"]["label"].value_counts().to_dict() == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1}


def test_it_depends_on_seed_and_ids_alone() -> None:
    images = many({1: 20, -7: 30, 2**62: 10})
    first = held(images, 0.3, 0)
    assert held(images, 0.3, 0) == first
    assert held(images.sample(frac=1, random_state=3), 0.3, 0) == first
    assert held(images, 0.3, 1) != first
    assert len(first) == 18


def test_a_class_is_drawn_the_same_whatever_the_others_are() -> None:
    alone = held(many({5: 12}), 0.25, 4)
    assert {name for name in held(many({1: 30, 5: 12}), 0.25, 4) if name.startswith("5-")} == alone


def test_classes_are_drawn_apart() -> None:
    moved = [name.split("-") for name in held(many({1: 40, 2: 40}), 0.3, 0)]
    assert {n for label, n in moved if label == "1"} != {n for label, n in moved if label == "2"}


def test_only_training_images_move_and_the_given_frame_stays() -> None:
    images = pd.concat([many({1: 10}), many({2: 10}, "test")], ignore_index=True)
    before = images.copy()
    after = hold_out_images(images, 0.5, 0)
    pd.testing.assert_frame_equal(images, before)
    assert (after["split"] == "test").sum() == 10
    assert (after["split"] == "val").sum() == 5
    pd.testing.assert_frame_equal(after.drop(columns="split"), before.drop(columns="split"))


def test_nothing_moves_for_no_fraction() -> None:
    assert held(many({1: 10}), 0.0, 0) == set()


# ---------------------------------------------------------------- whole groups, whole classes


def test_held_out_groups_are_whole_and_leave_every_class_something() -> None:
    rows = [(f"i{place}", "train", place % 5) for place in range(100)] + [("lone", "train", 9)]
    table = build(*rows)
    table["group"] = pd.Series([f"g{place // 2 // 5}_{place % 5}" for place in range(100)] + [None], dtype="str")
    held = hold_out_groups(table, 0.2, seed=3)
    val = held["split"] == "val"
    assert 15 <= val.sum() <= 25
    assert not set(held.loc[val, "group"]) & set(held.loc[~val, "group"].dropna())
    assert set(held.loc[~val, "label"]) == {0, 1, 2, 3, 4, 9}
    assert hold_out_groups(table, 0.2, seed=3).equals(held)


def test_held_out_classes_are_whole() -> None:
    rows = [(f"i{place}", "train", place % 10) for place in range(100)] + [("t", "test", None)]
    held = hold_out_classes(build(*rows), 0.3, seed=1)
    val = held["split"] == "val"
    assert len(set(held.loc[val, "label"])) == 3
    assert not set(held.loc[val, "label"]) & set(held.loc[held["split"] == "train", "label"])
    assert val.sum() == 30
    assert held["split"].iloc[-1] == "test"


def test_whole_classes_are_held_out() -> None:
    labels = np.random.default_rng(0).integers(50, size=1000) * 3
    held = split_by_class(labels, 0.3, 1)
    assert not set(labels[held].tolist()) & set(labels[~held].tolist())
    assert len(set(labels[held].tolist())) == 15
    np.testing.assert_array_equal(held[::-1], split_by_class(labels[::-1], 0.3, 1))


def test_both_sides_keep_a_class() -> None:
    for share in (0.01, 0.99):
        assert set(split_by_class(np.array([4, 9, 4]), share, 0).tolist()) == {True, False}


@pytest.mark.parametrize(("labels", "share"), [([1, 1], 0.5), ([1, 2], 0.0), ([1, 2], 1.0)])
def test_an_impossible_split_is_refused(labels: list[int], share: float) -> None:
    with pytest.raises(DataError, match="a class-disjoint split must have"):
        split_by_class(np.array(labels), share, 0)


@pytest.mark.parametrize("by", ["images", "classes"])
def test_the_way_that_is_asked_for_holds_out_and_groups_stay_whole(by: str) -> None:
    table = many(dict.fromkeys(range(10), 8))
    expected = hold_out_classes if by == "classes" else hold_out_images
    assert hold_out_validation(table, 0.25, 4, by=by).equals(expected(table, 0.25, 4))
    table["group"] = pd.Series([f"g{row // 2}" for row in range(80)], dtype="str")
    expected = hold_out_classes if by == "classes" else hold_out_groups
    assert hold_out_validation(table, 0.25, 4, by=by).equals(expected(table, 0.25, 4))


# ---------------------------------------------------------------- titles without a label


def titled(*titles: str | None, labels: list[int | None] | None = None, groups: list[str | None] | None = None):
    ids = [f"{number:04d}" for number in range(len(titles))]
    return build_frame(
        IMAGE_COLUMNS,
        {
            "image_id": ids,
            "split": ["train"] * len(ids),
            "label": labels or [None] * len(ids),
            "title": list(titles),
            "group": groups or [None] * len(ids),
            "status": ["ok"] * len(ids),
        },
    )


@pytest.mark.parametrize("by", ["images", "classes"])
def test_a_share_of_unlabelled_titles_is_held_out_by_seed_and_ids(by):
    images = titled(*(f"title {number}" for number in range(100)))
    after = hold_out_validation(images, 0.15, 0, by=by)
    assert after["split"].value_counts().to_dict() == {"train": 85, "val": 15}
    again = hold_out_validation(images.iloc[::-1], 0.15, 0, by=by)
    assert again.sort_values("image_id")["split"].tolist() == after["split"].tolist()
    assert hold_out_validation(images, 0.15, 1, by=by)["split"].tolist() != after["split"].tolist()
    assert (images["split"] == "train").all()


def test_equal_titles_and_groups_are_held_out_together():
    groups = ["g" if number in (3, 4) else None for number in range(60)]
    images = titled(*(f"title {number // 3}" for number in range(60)), groups=groups)
    seen = set()
    for seed in range(20):
        after = hold_out_validation(images, 0.3, seed, by="images")
        assert (after["split"] == "val").sum() == 18
        assert after.groupby("title")["split"].nunique().max() == 1
        seen.add(after["split"].iloc[3])
    assert seen == {"train", "val"}


def test_rows_without_label_and_title_stay_and_labelled_ones_are_held_out_by_class():
    labels = [1] * 10 + [None] * 10
    images = titled(*(f"title {number}" for number in range(15)), *([None] * 5), labels=labels)
    after = hold_out_validation(images, 0.2, 0, by="images")
    held = after["split"] == "val"
    assert held[:10].sum() == 2 and held[10:15].sum() == 1 and not held[15:].any()
    assert (hold_out_validation(titled(None, None), 0.5, 0, by="images")["split"] == "train").all()
