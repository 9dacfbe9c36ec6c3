"""Class folders: flat, nested, with and without splits."""

from pathlib import Path

import pytest
from PIL import Image

from productrec.data.sources.format_folders import read_folders
from productrec.data.sources.formats import find_paths
from productrec.data.sources.layouts import detect_layout
from productrec.errors import DataError


def write_images(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), "red").save(root / name)
    return root


def test_folders_without_splits(tmp_path: Path) -> None:
    source = write_images(tmp_path, "tin/2.jpg", "tin/1.PNG", "jar/1.jpg")
    rows = read_folders(source)
    assert detect_layout(source) == "folders"
    assert rows.image_id == ["jar/1.jpg", "tin/1.PNG", "tin/2.jpg"]
    assert rows.split == ["train"] * 3
    assert rows.label == [0, 1, 1]
    assert rows.class_names == {0: "jar", 1: "tin"}
    assert rows.class_paths == {}


def test_folders_with_splits_and_a_flat_test_folder(tmp_path: Path) -> None:
    source = write_images(
        tmp_path, "train/tin/1.jpg", "train/jar/1.jpg", "val/tin/1.jpg", "test/9.jpg", "test/more/8.jpg"
    )
    rows = read_folders(source)
    assert list(zip(rows.image_id, rows.split, rows.label, strict=True)) == [
        ("train/jar/1.jpg", "train", 0),
        ("train/tin/1.jpg", "train", 1),
        ("val/tin/1.jpg", "val", 1),
        ("9.jpg", "test", None),
        ("more/8.jpg", "test", None),
    ]
    images, _ = rows.build_frames()
    assert find_paths(images, source).tolist() == rows.path
    assert all((source / path).is_file() for path in rows.path)


def test_a_class_known_from_validation_alone_gets_its_number(tmp_path: Path) -> None:
    rows = read_folders(write_images(tmp_path, "train/tin/1.jpg", "val/box/1.jpg"))
    assert rows.class_names == {0: "box", 1: "tin"}
    assert rows.label == [1, 0]


def test_nested_folders_are_categories_and_equal_leaves_stay_apart(tmp_path: Path) -> None:
    rows = read_folders(write_images(tmp_path, "food/tin/red/1.jpg", "food/jar/red/1.jpg", "food/jar/blue/1.jpg"))
    assert rows.class_paths == {0: "food/jar", 1: "food/jar", 2: "food/tin"}
    assert rows.class_names == {0: "blue", 1: "food/jar/red", 2: "food/tin/red"}


def test_hidden_files_other_files_and_loose_images_are_left_out(tmp_path: Path) -> None:
    source = write_images(tmp_path, "tin/1.jpg", "tin/.hidden.jpg", ".cache/x/1.jpg", "loose.jpg")
    (source / "tin" / "notes.txt").write_text("x")
    assert read_folders(source).image_id == ["tin/1.jpg"]


def test_val_and_test_without_train_are_ordinary_classes(tmp_path: Path) -> None:
    rows = read_folders(write_images(tmp_path, "val/1.jpg", "test/1.jpg"))
    assert rows.split == ["train", "train"]
    assert rows.class_names == {0: "test", 1: "val"}


def test_the_order_on_disk_does_not_matter(tmp_path: Path) -> None:
    names = ["b/2.jpg", "a/1.jpg", "b/1.jpg", "a/2.jpg"]
    first = read_folders(write_images(tmp_path / "one", *names))
    second = read_folders(write_images(tmp_path / "two", *reversed(names)))
    assert first == second


@pytest.mark.parametrize("files", [[], ["tin/notes.txt"], ["train/notes.txt"]])
def test_folders_without_images_are_refused(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"must hold one folder of images a class; no image \(\.jpg, "):
        read_folders(tmp_path)


def test_a_file_name_that_is_no_unicode_is_refused_and_named(tmp_path: Path) -> None:
    write_images(tmp_path, "tin/a.jpg")
    try:
        Path(f"{tmp_path}/tin/b\udcff.jpg").write_bytes(b"x")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only Unicode names")
    with pytest.raises(DataError, match=r"must be valid Unicode; 1 \('tin/b\\udcff.jpg'\) are not"):
        read_folders(tmp_path).build_frames()


def test_a_train_folder_of_loose_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        read_folders(write_images(tmp_path, "train/1.jpg", "val/tin.jpg"))
