"""Differences between two states of a table: images by id and content, classes by name."""

import pandas as pd

from productrec.data.curation.differences import Differences, compare_tables
from productrec.data.table import CLASS_COLUMNS, IMAGE_COLUMNS, build_frame

Table = tuple[pd.DataFrame, pd.DataFrame]


def build(
    *rows: tuple[str, str | None, str | None], numbers: dict[str, int] | None = None, split: str = "train"
) -> Table:
    """A table of (id, class name, digest)."""
    names = sorted({name for _, name, _ in rows if name is not None})
    numbers = numbers or {name: number for number, name in enumerate(names)}
    images = {
        "image_id": [image_id for image_id, _, _ in rows],
        "label": [None if name is None else numbers[name] for _, name, _ in rows],
        "digest": [digest for _, _, digest in rows],
        "status": ["ok"] * len(rows),
        "split": [split] * len(rows),
    }
    classes = {"id": list(numbers.values()), "name": list(numbers)}
    return build_frame(IMAGE_COLUMNS, images), build_frame(CLASS_COLUMNS, classes)


BEFORE = build(("a", "jar", "1"), ("b", "jar", "2"), ("c", "tin", "3"), ("d", None, "4"))


def test_the_same_table_has_no_differences() -> None:
    assert compare_tables(BEFORE, BEFORE).is_empty
    assert compare_tables(BEFORE, BEFORE).describe() == []


def test_images_that_came_went_moved_and_changed() -> None:
    after = build(("a", "jar", "1"), ("b2", "jar", "2"), ("c", "tin", "33"), ("e", "tin", "5"))
    assert compare_tables(BEFORE, after) == Differences(
        images_added=["e"], images_removed=["d"], images_moved=["b to b2"], images_changed=["c"]
    )


def test_labels_follow_names_and_not_numbers() -> None:
    after = build(
        ("a", "jar", "1"), ("b", "tin", "2"), ("c", "tin", "3"), ("d", None, "4"), numbers={"jar": 1, "tin": 2}
    )
    found = compare_tables(BEFORE, after)
    assert found.labels_changed == ["b: jar to tin"]
    assert found.classes_renumbered == ["jar from 0 to 1", "tin from 1 to 2"]
    assert found.describe()[0] == "labels: changed 1 (b: jar to tin)"


def test_a_class_whose_images_are_of_a_new_one_was_renamed() -> None:
    after = build(("a", "box", "1"), ("b", "box", "2"), ("c", "tin", "3"), ("d", None, "4"))
    found = compare_tables(BEFORE, after)
    assert found == Differences(classes_renamed=["jar to box"])
    moved = build(("box/a", "box", "1"), ("box/b", "box", "2"), ("c", "tin", "3"), ("d", None, "4"))
    assert compare_tables(BEFORE, moved).classes_renamed == ["jar to box"]
    other = build(("x", "box", "7"), ("c", "tin", "3"), ("d", None, "4"))
    found = compare_tables(BEFORE, other)
    assert (found.classes_renamed, found.classes_added, found.classes_removed) == ([], ["box"], ["jar"])


def test_states_and_splits() -> None:
    images, classes = BEFORE
    changed = images.assign(status=["dropped", "broken", "ok", "ok"], split=["val", "train", "test", "train"])
    found = compare_tables(BEFORE, (changed, classes))
    assert found.states_changed == ["b: ok to broken"]
    assert found.splits_changed == ["a: train to val", "c: train to test"]
    assert compare_tables(BEFORE, (changed, classes), splits=False).splits_changed == ["c: train to test"]
