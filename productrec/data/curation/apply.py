"""Curation of a table: what near-duplicates mean for it, what is held out, and its folds."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from productrec.data.curation.duplicates import DuplicateReport
from productrec.data.curation.folds import assign_folds, join_groups, split_by_class
from productrec.data.table import SPLITS
from productrec.errors import describe_offenders

DedupMode = Literal["off", "report", "drop", "group"]


def describe_duplicates(report: DuplicateReport) -> list[str]:
    """What a person should know of the clusters: how many, which cross splits, which carry different labels."""
    findings = []
    if report.skipped:
        findings.append(
            f"{report.skipped:,} pairs of images are so alike in outline that they were not compared; only the nearest "
            "were, and exact copies."
        )
    if not report.clusters:
        return findings
    members = sum(len(cluster.image_ids) for cluster in report.clusters)
    findings += [f"{members:,} images are near-duplicates in {len(report.clusters):,} clusters; see duplicates.csv."]
    crossing = [cluster.image_ids[0] for cluster in report.clusters if cluster.crosses_splits]
    if crossing:
        findings.append(f"{describe_offenders(crossing)} of these clusters cross train, val and test: a leak.")
    conflicting = [cluster.image_ids[0] for cluster in report.clusters if cluster.labels_conflict]
    if conflicting:
        findings.append(f"{describe_offenders(conflicting)} of these clusters carry different labels.")
    return findings


def list_duplicates(report: DuplicateReport, images: pd.DataFrame) -> pd.DataFrame:
    """The clusters as rows to read: ``cluster``, ``image_id``, ``split``, ``label``."""
    known = images.set_index("image_id")
    rows = [
        (number, image_id, known.at[image_id, "split"], known.at[image_id, "label"])
        for number, cluster in enumerate(report.clusters)
        for image_id in cluster.image_ids
    ]
    return pd.DataFrame(rows, columns=["cluster", "image_id", "split", "label"])


def apply_duplicates(images: pd.DataFrame, report: DuplicateReport, mode: DedupMode) -> pd.DataFrame:
    """The table after ``mode``.

    ``drop``: of each cluster one readable image stays, the first of val and test before train's; other train images get
    the status ``dropped``, with the reason, and val and test images are never dropped. ``group``: all stay, and the
    cluster joins the column ``group``, which folds and held-out images never split.
    """
    changed = images.copy()
    if mode == "group":
        together = join_groups(_get_groups(images), report.groups)
        shared = np.bincount(together, minlength=len(images))[together] > 1
        ids = images["image_id"].to_numpy(dtype=object)
        changed["group"] = pd.Series(np.where(shared, ids[together], None), index=images.index, dtype="str")
    if mode == "drop":
        usable = images["status"] == "ok"
        rank = images["split"].map({"test": 0, "val": 1, "train": 2})
        order = pd.DataFrame({"group": report.groups, "rank": rank, "place": range(len(images))})[usable.to_numpy()]
        order = order.sort_values(["group", "rank", "place"])
        kept = order.groupby("group")["place"].transform("first")
        dropped = order[(order["place"] != kept) & (order["rank"] == SPLITS.index("test"))]
        for place, first in zip(dropped["place"], kept[dropped.index], strict=True):
            changed.loc[images.index[place], ["status", "reason"]] = (
                "dropped",
                f"is a near-duplicate of {images['image_id'].iloc[first]}",
            )
    return changed


def hold_out_grouped(images: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Move about ``fraction`` of the training images to val, whole groups at a time.

    A class keeps training images: groups that would take its last ones stay.
    """
    train = images[(images["split"] == "train") & images["label"].notna() & (images["status"] == "ok")]
    parts = max(2, round(1 / fraction))
    labels = train["label"].to_numpy(dtype=np.int64)
    groups = _get_groups(train)
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


def assign_table_folds(images: pd.DataFrame, count: int, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """The table with the column ``fold``, 0 to ``count - 1``, of its readable labelled training images; and findings.

    Raises:
        DataError: fewer groups than folds.
    """
    train = images[(images["split"] == "train") & images["label"].notna() & (images["status"] == "ok")]
    labels = train["label"].to_numpy(dtype=np.int64)
    dealt = assign_folds(labels, _get_groups(train), count, seed)
    changed = images.copy()
    changed.loc[train.index, "fold"] = dealt.folds
    findings = []
    if dealt.small_classes:
        small = describe_offenders(dealt.small_classes)
        findings.append(f"{small} classes have fewer images or groups than {count} folds; some folds lack them.")
    return changed, findings


def _get_groups(images: pd.DataFrame) -> np.ndarray:
    return np.array([None if pd.isna(group) else group for group in images["group"]], dtype=object)
