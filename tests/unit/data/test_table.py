"""The image table: its promises, what a person is told, disk."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from productrec.artifacts import load_manifest
from productrec.data.sources.rows import SourceRows
from productrec.data.table import (
    CLASS_COLUMNS,
    IMAGE_COLUMNS,
    ImageTable,
    build_frame,
    check_table,
    find_findings,
    load_table,
    save_table,
)
from productrec.errors import ArtifactError, DataError


def frames(*entries: tuple[str, str, int | None], status: str = "ok") -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = SourceRows()
    for image_id, split, label in entries:
        rows.add(image_id, split, label, path=f"images/{image_id}")
    images, classes = rows.build_frames()
    images["status"] = pd.Series([status] * len(images), dtype="str")
    return images, classes


def many(per_class: dict[int, int], split: str = "train") -> pd.DataFrame:
    return frames(*((f"{label}-{number}", split, label) for label, n in per_class.items() for number in range(n)))[0]


GOOD = (("a", "train", 1), ("b", "train", 1), ("c", "val", 2), ("d", "test", None))


def test_frames_have_exactly_the_columns_and_types() -> None:
    images, classes = frames(*GOOD)
    assert list(images.columns) == list(IMAGE_COLUMNS)
    assert list(classes.columns) == list(CLASS_COLUMNS)
    for name, kind in IMAGE_COLUMNS.items():
        assert str(images[name].dtype) in (kind, "object" if kind == "str" else kind), name  # pandas 2: object
    assert build_frame({"x": "Int64", "y": "str"}, {"x": [1, None]})["y"].isna().all()


# ---------------------------------------------------------------- promises


def test_a_good_table_passes() -> None:
    check_table(*frames(*GOOD), "here")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_ids_repeated_within_and_across_splits_are_refused(split: str) -> None:
    images, classes = frames(*GOOD, ("a", split, None if split == "test" else 1))
    with pytest.raises(DataError, match=r"here: image ids must be unique over all splits; 1 \(a\) stand more than"):
        check_table(images, classes, "here")


def test_many_repeated_ids_are_counted_and_the_first_few_named() -> None:
    entries = [(f"i{number}", "train", 1) for number in range(9)]
    with pytest.raises(DataError, match=r"9 \(i0, i1, i2, i3, i4, \.\.\.\) stand more than once"):
        check_table(*frames(*entries, *entries), "here")


def test_a_training_image_without_label_is_refused() -> None:
    with pytest.raises(DataError, match=r"every training image must have a label or a title; 1 \(x\) have neither"):
        check_table(*frames(*GOOD, ("x", "train", None)), "here")
    check_table(*frames(*GOOD, ("x", "val", None)), "here")
    images, classes = frames(*GOOD, ("x", "train", None))
    images.loc[images["image_id"] == "x", "title"] = "Oat milk"
    check_table(images, classes, "here")
    assert find_findings(images)[0] == "1 (x) images have a title and no label; no class learns from them."
    images["label"] = pd.Series([None] * len(images), dtype="Int64")
    assert find_findings(images)[0].startswith("no image has a label: images and titles can be learned together")


def test_a_label_that_is_no_class_is_refused() -> None:
    images, classes = frames(*GOOD)
    with pytest.raises(DataError, match=r"labels must be among the classes; got 1 \(2\)"):
        check_table(images, classes[classes["id"] != 2], "here")


@pytest.mark.parametrize("box", ["1,2,3", "1,2,3,4,5", "a,2,3,4", "1,2,0,4", "1,2,3,-4", "nan,2,3,4", "", "1,2,inf,4"])
def test_a_box_that_is_none_is_refused_and_rows_without_one_pass(box: str) -> None:
    images, classes = frames(*GOOD)
    images.loc[1, "box"] = "1,2,3,4"
    check_table(images, classes, "here")
    images.loc[2, "box"] = box
    with pytest.raises(DataError, match=r"here: a box must be four numbers, x,y,width,height; 1 \(c\) are not"):
        check_table(images, classes, "here")


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="no images are listed"):
        check_table(*frames(), "here")


# ---------------------------------------------------------------- findings


def test_a_clean_table_has_no_findings() -> None:
    assert find_findings(frames(("a", "train", 1), ("b", "train", 1), ("c", "val", 1), ("d", "test", None))[0]) == []


def test_missing_and_broken_images_are_findings() -> None:
    images = many({1: 8})
    images.loc[images.index[:2], "status"] = "missing"
    images.loc[images.index[2:3], "status"] = "broken"
    findings = find_findings(images)
    assert findings[0].startswith("2 (1-0, 1-1) of 8 images have no file")
    assert findings[1].startswith("1 (1-2) of 8 images cannot be decoded")


def test_a_label_only_in_validation_is_a_finding() -> None:
    images, _ = frames(("a", "train", 1), ("b", "train", 1), ("c", "val", 2), ("d", "val", 1))
    assert [text for text in find_findings(images) if "without one readable training image" in text] == [
        "1 (2) labels stand in val without one readable training image; they cannot be predicted and count as errors."
    ]


def test_a_label_whose_training_images_are_all_broken_is_a_finding() -> None:
    images, _ = frames(("a", "train", 1), ("b", "train", 1), ("c", "val", 1), ("d", "val", 1))
    images.loc[images["split"] == "train", "status"] = "broken"
    assert any("1 (1) labels stand in val without one readable" in text for text in find_findings(images))


def test_a_class_with_one_readable_image_is_a_finding() -> None:
    images = many({1: 1, 2: 2, 3: 2})
    images.loc[images["image_id"] == "3-0", "status"] = "broken"
    assert any(text.startswith("2 (1, 3) classes have a single training image") for text in find_findings(images))


# ---------------------------------------------------------------- the table itself


def build_table(tmp_path: Path, **changes: Any) -> ImageTable:
    images, classes = frames(*GOOD)
    images.loc[1, "status"] = "broken"
    return ImageTable(images, classes, root=tmp_path, sample=None, fingerprint="x")


def test_rows_are_selected_by_split_and_state(tmp_path: Path) -> None:
    table = build_table(tmp_path)
    assert table.select(["train"])["image_id"].tolist() == ["a"]
    assert table.select(["train"], usable=False)["image_id"].tolist() == ["a", "b"]
    assert table.select(("test", "val"))["image_id"].tolist() == ["c", "d"]  # the table's order
    assert table.get_paths(table.select(["val"])) == [str(tmp_path / "images" / "c")]


def test_a_row_whose_state_is_not_known_is_not_usable(tmp_path: Path) -> None:
    images, classes = frames(*GOOD)
    images["status"] = pd.Series(["ok", None, None, "dropped"], dtype="str")
    table = ImageTable(images, classes, root=Path("/"), sample=None, fingerprint="x")
    assert table.select(["train", "val", "test"])["image_id"].tolist() == ["a"]
    assert table.get_paths(table.select(["train"])) == ["/images/a"]


def test_a_class_without_a_name_is_called_by_its_id(tmp_path: Path) -> None:
    table = build_table(tmp_path)
    table.classes.loc[table.classes["id"] == 1, "name"] = "tin"
    table.classes.loc[table.classes["id"] == 2, "name"] = ""
    assert table.get_class_names([2, 1, 99]) == ["2", "tin", "99"]


# ---------------------------------------------------------------- disk


def save(tmp_path: Path, *entries: tuple[str, str, int | None], sample: Path | None = None) -> Path:
    folder = tmp_path / "data" / "table"
    (tmp_path / "source").mkdir(parents=True, exist_ok=True)
    images, classes = frames(*entries)
    save_table(
        folder, images, classes, root=tmp_path / "source", sample=sample, inputs={"x": "1"}, settings={"seed": 0}
    )
    return folder


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_text("id,predicted\nd,1\n")
    entries = (*GOOD, ("000123", "train", 2**62 + 1), ("NA", "test", None), ("é\n,", "test", None))
    folder = save(tmp_path, *entries, sample=sample)
    images, classes = frames(*entries)
    table = load_table(folder)
    pd.testing.assert_frame_equal(table.images, images)
    pd.testing.assert_frame_equal(table.classes, classes)
    assert table.root == tmp_path / "source"
    assert table.sample == folder / "sample_submission.csv"
    assert table.sample.read_text() == sample.read_text()
    assert table.fingerprint == load_manifest(folder).fingerprint
    assert load_manifest(folder).notes["images"] == 7


def test_a_table_moves_with_its_images_or_is_told_where_they_are(tmp_path: Path) -> None:
    save(tmp_path / "old", *GOOD)
    (tmp_path / "old").rename(tmp_path / "new")
    table = load_table(tmp_path / "new" / "data" / "table")
    assert table.root == tmp_path / "new" / "source"
    assert table.sample is None
    assert load_table(tmp_path / "new" / "data" / "table", root=tmp_path).root == tmp_path


def test_a_table_that_moves_alone_still_finds_its_images(tmp_path: Path) -> None:
    folder = save(tmp_path, *GOOD)
    (tmp_path / "far" / "away" / "from").mkdir(parents=True)
    moved = folder.rename(tmp_path / "far" / "away" / "from" / "here")
    assert load_table(moved).root == tmp_path / "source"


def test_the_same_content_has_the_same_fingerprint(tmp_path: Path) -> None:
    first = load_table(save(tmp_path / "a", *GOOD)).fingerprint
    assert load_table(save(tmp_path / "b", *GOOD)).fingerprint == first
    assert load_table(save(tmp_path / "c", *GOOD[:-1])).fingerprint != first


@pytest.mark.parametrize("name", ["images.parquet", "classes.parquet"])
def test_a_damaged_table_is_refused(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, *GOOD)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name}: differs from its manifest; the image table is damaged"):
        load_table(folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name}: missing"):
        load_table(folder)


def test_a_folder_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"mine: no image table here. Make it with `productrec ingest SOURCE"):
        load_table(tmp_path / "mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "images.parquet").write_text("x")
    with pytest.raises(ArtifactError, match=r"There are \S+/other: name one with data.table=FOLDER. Or make it with"):
        load_table(tmp_path / "mine")


@pytest.mark.parametrize("torn", ["a\nb", "a\rb", ""])
def test_ids_and_class_names_that_no_csv_can_hold_are_refused(torn: str) -> None:
    with pytest.raises(DataError, match=r"image ids must be text of one line, not empty; 1 \('"):
        check_table(*frames(*GOOD, (torn, "train", 1)), "here")
    images, classes = frames(*GOOD)
    classes.loc[0, "name"] = torn
    with pytest.raises(DataError, match=r"class names must be text of one line, not empty; 1 \('"):
        check_table(images, classes, "here")
