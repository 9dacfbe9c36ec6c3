"""What an audit finds before any training."""

import numpy as np
import pandas as pd

from productrec.data.curation.anomalies import find_class_anomalies, find_label_conflicts, find_shape_outliers
from productrec.data.curation.duplicates import DuplicateCluster, DuplicateReport
from productrec.data.table import IMAGE_COLUMNS, build_frame


def build(labels: list[int], sizes: list[tuple[int, int]] | None = None) -> pd.DataFrame:
    count = len(labels)
    width, height = zip(*(sizes or [(300, 200)] * count), strict=True)
    values = {"image_id": [f"i{place}" for place in range(count)], "split": ["train"] * count, "label": labels}
    return build_frame(IMAGE_COLUMNS, values | {"status": ["ok"] * count, "width": width, "height": height})


def test_tiny_and_dominating_classes_are_told() -> None:
    labels = [1] * 3 + [2] * 10 + [3] * 10 + [4] * 101
    found = find_class_anomalies(build(labels), [1, 2, 3, 4, 5])
    assert [(one["kind"], one["label"], one["score"]) for one in found] == [
        ("tiny_class", 5, 0),
        ("tiny_class", 1, 3),
        ("dominating_class", 4, 101),
    ]


def test_images_that_do_not_count_are_not_counted() -> None:
    images = build([1] * 8)
    images.loc[:5, "status"] = "broken"
    assert [one["label"] for one in find_class_anomalies(images, [1])] == [1]


def test_only_outlying_shapes_are_told_the_farthest_first() -> None:
    generator = np.random.default_rng(0)
    sizes = [(int(300 * f), int(200 * f)) for f in generator.normal(1, 0.05, 200).clip(0.8, 1.2)]
    sizes += [(30, 20), (3000, 200), (900, 600)]
    found = find_shape_outliers(build([1] * len(sizes), sizes))
    by_kind = {kind: [one["image_id"] for one in found if one["kind"] == kind] for kind in {o["kind"] for o in found}}
    assert by_kind["size_outlier"][0] == "i200"
    assert set(by_kind["size_outlier"]) == {"i200", "i201", "i202"}
    assert by_kind["aspect_outlier"] == ["i201"]
    assert find_shape_outliers(build([1] * 50)) == []
    assert find_shape_outliers(build([1], [(10, 10)]).iloc[:0]) == []


def test_uniform_photographs_a_little_apart_are_no_outliers() -> None:
    assert find_shape_outliers(build([1] * 51, [(300, 200)] * 50 + [(330, 200)])) == []


def test_every_member_of_a_conflicting_cluster_is_told() -> None:
    report = DuplicateReport(
        np.array([0, 0, 2, 2]),
        (
            DuplicateCluster(("a", "b"), ("train",), (1, 2)),
            DuplicateCluster(("c", "d"), ("train",), (3,)),
        ),
        np.empty((0, 2), np.int64),
        np.empty(0),
    )
    found = find_label_conflicts(report)
    assert [one["image_id"] for one in found] == ["a", "b"]
    assert "near-duplicate of b" in found[0]["detail"]
    assert "labels 1, 2" in found[0]["detail"]
