"""Deduplication of a table: what its near-duplicates mean for it, and what becomes of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from productrec.data.curation.duplicates import DuplicateReport
from productrec.data.curation.folds import get_groups, join_groups
from productrec.data.table import DISTRACTORS, SPLITS
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
        together = join_groups(get_groups(images), report.groups)
        shared = np.bincount(together, minlength=len(images))[together] > 1
        ids = images["image_id"].to_numpy(dtype=object)
        changed["group"] = pd.Series(np.where(shared, ids[together], None), index=images.index, dtype="str")
    if mode == "drop":
        usable = images["status"] == "ok"
        rank = images["split"].map({"test": 0, "val": 1, "train": 2, DISTRACTORS: 3})
        order = pd.DataFrame({"group": report.groups, "rank": rank, "row": range(len(images))})[usable.to_numpy()]
        order = order.sort_values(["group", "rank", "row"])
        kept = order.groupby("group")["row"].transform("first")
        dropped = order[(order["row"] != kept) & (order["rank"] == SPLITS.index("test"))]
        for row, first in zip(dropped["row"], kept[dropped.index], strict=True):
            changed.loc[images.index[row], ["status", "reason"]] = (
                "dropped",
                f"is a near-duplicate of {images['image_id'].iloc[first]}",
            )
    return changed
