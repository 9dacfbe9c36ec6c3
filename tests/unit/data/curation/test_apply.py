"""What duplicates, held-out images and folds do to a table."""

import numpy as np
import pandas as pd

from productrec.data.curation.apply import (
    apply_duplicates,
    assign_table_folds,
    describe_duplicates,
    hold_out_classes,
    hold_out_grouped,
    list_duplicates,
)
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


def test_held_out_groups_are_whole_and_leave_every_class_something() -> None:
    rows = [(f"i{place}", "train", place % 5) for place in range(100)] + [("lone", "train", 9)]
    table = build(*rows)
    table["group"] = pd.Series([f"g{place // 2 // 5}_{place % 5}" for place in range(100)] + [None], dtype="str")
    held = hold_out_grouped(table, 0.2, seed=3)
    val = held["split"] == "val"
    assert 15 <= val.sum() <= 25
    assert not set(held.loc[val, "group"]) & set(held.loc[~val, "group"].dropna())
    assert set(held.loc[~val, "label"]) == {0, 1, 2, 3, 4, 9}
    assert hold_out_grouped(table, 0.2, seed=3).equals(held)


def test_folds_go_to_readable_labelled_training_images() -> None:
    rows = [(f"i{place}", "train", place % 3) for place in range(30)] + [("v", "val", 1), ("lone", "train", 8)]
    table = build(*rows)
    table.loc[0, "status"] = "broken"
    dealt, findings = assign_table_folds(table, 5, seed=0)
    assert dealt["fold"].isna().tolist() == [True] + [False] * 29 + [True, False]
    assert sorted(dealt["fold"].dropna().unique().tolist()) == [0, 1, 2, 3, 4]
    assert findings == ["1 (8) classes have fewer images or groups than 5 folds; some folds lack them."]


def test_held_out_classes_are_whole() -> None:
    rows = [(f"i{place}", "train", place % 10) for place in range(100)] + [("t", "test", None)]
    held = hold_out_classes(build(*rows), 0.3, seed=1)
    val = held["split"] == "val"
    assert len(set(held.loc[val, "label"])) == 3
    assert not set(held.loc[val, "label"]) & set(held.loc[held["split"] == "train", "label"])
    assert val.sum() == 30
    assert held["split"].iloc[-1] == "test"
