"""What near-duplicates do to a table."""

import numpy as np
import pandas as pd

from productrec.data.curation.deduplication import apply_duplicates, describe_duplicates, list_duplicates
from productrec.data.curation.duplicates import DuplicateCluster, DuplicateReport
from productrec.data.table import IMAGE_COLUMNS, build_frame


def build(*rows: tuple[str, str, int | None], status: str = "ok") -> pd.DataFrame:
    ids, splits, labels = zip(*rows, strict=True)
    return build_frame(
        IMAGE_COLUMNS,
        {"image_id": list(ids), "split": list(splits), "label": list(labels), "status": [status] * len(rows)},
    )


TABLE = build(
    ("a", "train", 1), ("b", "train", 1), ("c", "train", 2), ("d", "val", 1), ("e", "test", None), ("f", "train", 3)
)
# a, b and d are one cluster, c and e another.
REPORT = DuplicateReport(
    np.array([0, 0, 2, 0, 2, 5]),
    (
        DuplicateCluster(("a", "b", "d"), ("train", "val"), (1,)),
        DuplicateCluster(("c", "e"), ("train", "test"), (2,)),
    ),
    np.empty((0, 2), np.int64),
    np.empty(0),
)


def test_dropping_keeps_one_of_each_cluster_and_never_val_or_test() -> None:
    changed = apply_duplicates(TABLE, REPORT, "drop")
    assert changed["status"].tolist() == ["dropped", "dropped", "dropped", "ok", "ok", "ok"]
    assert changed["reason"].tolist()[:3] == [
        "is a near-duplicate of d",
        "is a near-duplicate of d",
        "is a near-duplicate of e",
    ]
    within = REPORT._replace(groups=np.array([0, 0, 2, 3, 4, 5]))
    assert apply_duplicates(TABLE, within, "drop")["status"].tolist() == ["ok", "dropped", "ok", "ok", "ok", "ok"]
    broken = TABLE.copy()
    broken.loc[3, "status"] = "broken"
    assert apply_duplicates(broken, REPORT, "drop")["status"].tolist()[:4] == ["ok", "dropped", "dropped", "broken"]


def test_grouping_joins_listings_and_clusters() -> None:
    table = TABLE.copy()
    table.loc[[1, 5], "group"] = "listing"
    changed = apply_duplicates(table, REPORT, "group")
    groups = changed["group"].tolist()
    assert groups[0] == groups[1] == groups[3] == groups[5]
    assert groups[2] == groups[4] != groups[0]
    assert (changed["status"] == "ok").all()
    assert apply_duplicates(table, REPORT, "report").equals(table)


def test_findings_name_leaks_and_conflicts() -> None:
    findings = describe_duplicates(REPORT)
    assert findings[0].startswith("5 images are near-duplicates in 2 clusters")
    assert "cross train, val and test" in findings[1]
    assert len(findings) == 2
    assert describe_duplicates(REPORT._replace(clusters=())) == []
    listed = list_duplicates(REPORT, TABLE)
    assert listed["image_id"].tolist() == ["a", "b", "d", "c", "e"]
    assert listed["cluster"].tolist() == [0, 0, 0, 1, 1]
