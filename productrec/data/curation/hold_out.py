"""Hold-outs: which training images of a source without val become its val; by image, group, class or title."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from productrec.data.curation.folds import assign_folds, get_groups, join_groups
from productrec.data.titles import normalise_title, number_groups, split_titles
from productrec.errors import DataError

HoldOut = Literal["images", "classes"]


def hold_out_validation(images: pd.DataFrame, fraction: float, seed: int, *, by: HoldOut) -> pd.DataFrame:
    """Move ``fraction`` of the training images to val: of each class's images, or of the classes.

    Where images stand in groups (listings, near-duplicates), these stay whole. Of images that have a title and no
    label, see `hold_out_titled`.

    Raises:
        DataError: whole classes are to be held out, and there are fewer than two.
    """
    is_train = images["split"] == "train"
    if (is_train & images["label"].isna() & images["title"].notna()).any():
        images = hold_out_titled(images, fraction, seed)
        if not (is_train & images["label"].notna()).any():
            return images
    if by == "classes":
        return hold_out_classes(images, fraction, seed)
    hold_out = hold_out_groups if images["group"].notna().any() else hold_out_images
    return hold_out(images, fraction, seed)


def hold_out_images(images: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Move ``fraction`` of each class from train to val, by a draw that depends on the seed and the ids alone.

    A class keeps at least one training image; where ``fraction`` of it is less than half an image, none is moved.
    """
    train = images[(images["split"] == "train") & images["label"].notna()].sort_values("image_id")
    moved: list[Any] = []
    for label in sorted(set(train["label"].astype(int))):
        rows = train[train["label"] == label]
        count = min(int(len(rows) * fraction + 0.5), len(rows) - 1)
        if count > 0:
            generator = np.random.default_rng([seed, label % 2**63])
            moved.extend(rows.index[generator.permutation(len(rows))[:count]])
    held = images.copy()
    held.loc[moved, "split"] = "val"
    return held


def hold_out_groups(images: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Move about ``fraction`` of the training images to val, whole groups at a time.

    A class keeps training images: groups that would take its last ones stay.
    """
    train = images[(images["split"] == "train") & images["label"].notna() & (images["status"] == "ok")]
    parts = max(2, round(1 / fraction))
    labels = train["label"].to_numpy(dtype=np.int64)
    groups = get_groups(train)
    if len(set(join_groups(groups).tolist())) < parts:
        return images
    is_held = assign_folds(labels, groups, parts, seed).folds == 0
    left = set(labels[~is_held].tolist())
    roots = join_groups(groups)
    needed = set(roots[[int(label) not in left for label in labels]].tolist())
    is_held &= [int(root) not in needed for root in roots]
    changed = images.copy()
    changed.loc[train.index[is_held], "split"] = "val"
    return changed


def hold_out_classes(images: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Move all training images of ``fraction`` of the classes to val, for open-set work and retrieval benchmarks.

    Which classes depends on the set of classes and the seed alone.

    Raises:
        DataError: there are fewer than two classes.
    """
    train = images[(images["split"] == "train") & images["label"].notna()]
    is_held = split_by_class(train["label"].to_numpy(dtype=np.int64), fraction, seed)
    changed = images.copy()
    changed.loc[train.index[is_held], "split"] = "val"
    return changed


def hold_out_titled(images: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Move ``fraction`` of the training images that have a title and no label to val, by a draw on seed and ids alone.

    Images of one group, and images that share a title, are moved together or not at all, so that what is looked for in
    val was not seen in training among images without a label; where a group is larger than what is still to be moved,
    others go in its stead.
    """
    is_titled = (images["split"] == "train") & images["label"].isna() & images["title"].notna()
    rows = images[is_titled].sort_values("image_id")
    titles = [[normalise_title(title) for title in split_titles(text)] for text in rows["title"]]
    _, groups, sizes = np.unique(
        join_groups(get_groups(rows), number_groups(titles, None)), return_inverse=True, return_counts=True
    )
    left = int(len(rows) * fraction + 0.5)
    is_held = np.zeros(len(sizes), bool)
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        if sizes[group] <= left:
            is_held[group] = True
            left -= sizes[group]
    changed = images.copy()
    changed.loc[rows.index[is_held[groups]], "split"] = "val"
    return changed


def split_by_class(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Hold out whole classes, for open-set work: no class stands on both sides.

    Args:
        labels: (N,) integers.
        share: of the classes, above 0 and below 1.
        seed: which classes; the same set of classes and seed give the same choice, whatever the images.

    Returns:
        (N,) bool, true for images of held-out classes: ``share`` of them, rounded, at least one on either side.

    Raises:
        DataError: ``share`` is out of range, or there are fewer than two classes.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    if not 0 < share < 1 or len(classes) < 2:
        raise DataError(
            "hold-out: a class-disjoint split must have a share between 0 and 1 and at least two classes; "
            f"got {share} and {len(classes)}."
        )
    held = np.zeros(len(classes), bool)
    chosen = min(max(int(share * len(classes) + 0.5), 1), len(classes) - 1)
    held[np.random.default_rng(seed).permutation(len(classes))[:chosen]] = True
    return held[codes]
