"""Class numbers stay with the names when a source is ingested again."""

from productrec.data.sources.class_numbers import keep_class_numbers
from productrec.data.sources.rows import SourceRows


def build_rows(*names: str) -> SourceRows:
    rows = SourceRows(numbered=True)
    for number, name in enumerate(names):
        rows.class_names[number] = name
        rows.add(f"{name}/1.jpg", "train", number)
    rows.add("t.jpg", "test", None)
    return rows


def test_known_classes_keep_their_numbers_and_new_ones_come_after_all_that_ever_were() -> None:
    rows = build_rows("aaa", "jar", "tin")
    assert keep_class_numbers(rows, {"jar": 0, "tin": 1}, first_free=5)
    assert rows.class_names == {5: "aaa", 0: "jar", 1: "tin"}
    assert rows.label == [5, 0, 1, None]


def test_a_class_is_known_by_its_path_in_the_category_tree() -> None:
    rows = build_rows("red", "blue")
    rows.class_paths = {0: "food", 1: "food"}
    keep_class_numbers(rows, {"drink/red": 0, "food/red": 7}, first_free=8)
    assert rows.label == [7, 8, None]
    assert rows.class_paths == {7: "food", 8: "food"}


def test_another_source_is_numbered_from_the_start() -> None:
    rows = build_rows("jar", "tin")
    assert not keep_class_numbers(rows, {"cat": 0}, first_free=1)
    assert rows.label == [0, 1, None]
