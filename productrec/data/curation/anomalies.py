"""What looks odd in an image table before anything is trained: classes too small or too large, outlying shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from productrec.data.curation.duplicates import DuplicateReport

TINY_CLASS = 4  # images; below, a PK batch repeats some
DOMINATING = 10.0  # times the median class
_LEAST_DEVIATIONS = 5.0  # robust standard deviations from the median
_LEAST_FACTOR = 1.5  # and at least this many times the median, so that uniform photographs have no outliers

Finding = dict[str, Any]


def find_class_anomalies(images: pd.DataFrame, class_ids: list[int]) -> list[Finding]:
    """Classes with fewer than `TINY_CLASS` readable training images, and those `DOMINATING` times the median.

    Args:
        images: rows of an image table.
        class_ids: every class there is; one without an image is tiny too.
    """
    rows = images[(images["split"] == "train") & (images["status"] == "ok") & images["label"].notna()]
    counts = rows["label"].value_counts().reindex(class_ids, fill_value=0)
    median = float(counts[counts > 0].median()) if (counts > 0).any() else 0.0
    findings: list[Finding] = []
    for class_id, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        if count < TINY_CLASS:
            findings.append({"kind": "tiny_class", "label": class_id, "score": count, "detail": f"{count} images"})
        elif count > DOMINATING * median:
            detail = f"{count} images, {count / median:.1f} times the median class"
            findings.append({"kind": "dominating_class", "label": class_id, "score": count, "detail": detail})
    return findings


def find_shape_outliers(images: pd.DataFrame) -> list[Finding]:
    """Readable images whose side or aspect lies far from the others'; the farthest first.

    Far is 5 robust standard deviations (of the logarithm, by the median absolute deviation) and a factor of 1.5.
    """
    rows = images[(images["status"] == "ok") & images["width"].notna()]
    if not len(rows):
        return []
    width, height = (rows[name].to_numpy(dtype=np.float64) for name in ("width", "height"))
    findings: list[Finding] = []
    measures = {"size_outlier": 0.5 * np.log(width * height), "aspect_outlier": np.log(width / height)}
    for kind, values in measures.items():
        apart = np.abs(values - np.median(values))
        spread = max(1.4826 * float(np.median(apart)), np.log(_LEAST_FACTOR) / _LEAST_DEVIATIONS)
        deviations = apart / spread
        for row in np.argsort(-deviations, kind="stable").tolist():
            if deviations[row] <= _LEAST_DEVIATIONS:
                break
            findings.append(
                {
                    "image_id": rows["image_id"].iloc[row],
                    "kind": kind,
                    "score": round(float(deviations[row]), 2),
                    "detail": f"{int(width[row])} x {int(height[row])} px",
                }
            )
    return findings


def find_label_conflicts(report: DuplicateReport) -> list[Finding]:
    """Every member of the clusters of near-duplicates that carry different labels."""
    findings: list[Finding] = []
    for cluster in report.clusters:
        if cluster.labels_conflict:
            labels = ", ".join(str(label) for label in cluster.labels)
            for image_id in cluster.image_ids:
                others = ", ".join(other for other in cluster.image_ids if other != image_id)
                detail = f"near-duplicate of {others}; together they carry the labels {labels}"
                finding = {"image_id": image_id, "kind": "label_conflict", "detail": detail}
                findings.append(finding | {"cluster": cluster.image_ids[0]})
    return findings
