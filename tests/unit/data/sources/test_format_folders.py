"""Class folders: flat, nested, with and without splits."""

from pathlib import Path

import pytest
from PIL import Image

from productrec.data.sources.files import find_paths
from productrec.data.sources.reading import detect_format, read_source
from productrec.data.sources.rows import SourceRows
from productrec.errors import DataError


def read(source: Path) -> SourceRows:
    return read_source(source, "folders")


def write_images(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), "red").save(root / name)
    return root


def test_folders_without_splits(tmp_path: Path) -> None:
    source = write_images(tmp_path, "tin/2.jpg", "tin/1.PNG", "jar/1.jpg")
    rows = read(source)
    assert detect_format(source) == "folders"
    assert rows.image_id == ["jar/1.jpg", "tin/1.PNG", "tin/2.jpg"]
    assert rows.split == ["train"] * 3
    assert rows.label == [0, 1, 1]
    assert rows.class_names == {0: "jar", 1: "tin"}
    assert rows.class_paths == {}


def test_folders_with_splits_and_a_flat_test_folder(tmp_path: Path) -> None:
    source = write_images(
        tmp_path, "train/tin/1.jpg", "train/jar/1.jpg", "val/tin/1.jpg", "test/9.jpg", "test/more/8.jpg"
    )
    rows = read(source)
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
    rows = read(write_images(tmp_path, "train/tin/1.jpg", "val/box/1.jpg"))
    assert rows.class_names == {0: "box", 1: "tin"}
    assert rows.label == [1, 0]


def test_nested_folders_are_categories_and_equal_leaves_stay_apart(tmp_path: Path) -> None:
    rows = read(write_images(tmp_path, "food/tin/red/1.jpg", "food/jar/red/1.jpg", "food/jar/blue/1.jpg"))
    assert rows.class_paths == {0: "food/jar", 1: "food/jar", 2: "food/tin"}
    assert rows.class_names == {0: "blue", 1: "food/jar/red", 2: "food/tin/red"}


def test_hidden_files_other_files_and_loose_images_are_left_out(tmp_path: Path) -> None:
    source = write_images(tmp_path, "tin/1.jpg", "tin/.hidden.jpg", ".cache/x/1.jpg", "loose.jpg")
    (source / "tin" / "notes.txt").write_text("x")
    assert read(source).image_id == ["tin/1.jpg"]


def test_val_and_test_without_train_are_refused_and_one_among_classes_is_a_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must hold train beside val and test; got val, test"):
        read(write_images(tmp_path / "one", "val/1.jpg", "test/1.jpg"))
    assert read(write_images(tmp_path / "two", "tin/1.jpg", "test/1.jpg")).class_names == {0: "test", 1: "tin"}


@pytest.mark.parametrize(
    "names", [("Train", "Val", "Test"), ("train", "valid", "test"), ("training", "dev", "TESTING")]
)
@pytest.mark.parametrize("above", ["", "dataset/"])
def test_splits_in_any_case_and_by_their_other_names(tmp_path: Path, names: tuple[str, ...], above: str) -> None:
    train, val, test = (above + name for name in names)
    source = write_images(tmp_path, f"{train}/tin/1.jpg", f"{train}/jar/1.jpg", f"{val}/tin/2.jpg", f"{test}/3.jpg")
    rows = read(source)
    assert rows.split == ["train", "train", "val", "test"]
    assert rows.class_names == {0: "jar", 1: "tin"}
    assert rows.image_id[-1] == "3.jpg"
    images, _ = rows.build_frames()
    assert find_paths(images, source).tolist() == rows.path


def test_one_split_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a split must be one folder; got val, valid"):
        read(write_images(tmp_path, "train/tin/1.jpg", "val/tin/1.jpg", "valid/tin/1.jpg"))


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    rows = read(write_images(tmp_path, "train/tin/1.jpg", "train/loose.jpg", "extra/tin/1.jpg"))
    assert rows.image_id == ["train/tin/1.jpg"]
    assert "1 (extra/) beside train/ hold images and are not read" in rows.warnings[0]
    assert "1 (train/loose.jpg) images lie in no class folder" in rows.warnings[1]


def test_class_folders_below_test_are_labels_and_others_are_not(tmp_path: Path) -> None:
    names = ("train/tin/1.jpg", "train/jar/1.jpg", "test/tin/2.jpg", "test/box/3.jpg", "test/4.jpg")
    rows = read(write_images(tmp_path / "one", *names))
    assert rows.image_id[2:] == ["4.jpg", "box/3.jpg", "tin/2.jpg"]
    assert rows.label == [1, 2, None, 0, 2]
    assert rows.class_names == {0: "box", 1: "jar", 2: "tin"}
    rows = read(write_images(tmp_path / "two", "train/tin/1.jpg", "test/unknown/3.jpg"))
    assert (rows.label, rows.class_names) == ([0, None], {0: "tin"})


@pytest.mark.parametrize("name", ["images", "train_images", "IMG"])
def test_a_folder_of_all_images_is_no_class(tmp_path: Path, name: str) -> None:
    source = write_images(tmp_path, f"{name}/1.jpg", f"{name}/2.jpg")
    with pytest.raises(DataError, match=rf"got 1 \({name}\). Its folders are named as folders of all images are"):
        detect_format(source)
    (source / "train_labels.csv").write_text("photo,brand\n1.jpg,x\n")
    assert detect_format(source) == "csv"  # which asks for its columns


def test_labels_beside_class_folders_are_read_only_where_they_are_labels_of_images(tmp_path: Path) -> None:
    source = write_images(tmp_path, "tin/1.jpg", "jar/2.jpg")
    (source / "labels.csv").write_text("number,name\n1,tin\n")
    assert detect_format(source) == "folders"
    (source / "labels.csv").write_text("id,label\n1.jpg,tin\n")
    assert detect_format(source) == "csv"


def test_the_order_on_disk_does_not_matter(tmp_path: Path) -> None:
    names = ["b/2.jpg", "a/1.jpg", "b/1.jpg", "a/2.jpg"]
    first = read(write_images(tmp_path / "one", *names))
    second = read(write_images(tmp_path / "two", *reversed(names)))
    assert first == second


@pytest.mark.parametrize("files", [[], ["tin/notes.txt"], ["train/notes.txt"]])
def test_folders_without_images_are_refused(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"must hold one folder of images a class; no image \(\.jpg, "):
        read(tmp_path)


def test_a_file_name_that_is_no_unicode_is_refused_and_named(tmp_path: Path) -> None:
    write_images(tmp_path, "tin/a.jpg")
    try:
        Path(f"{tmp_path}/tin/b\udcff.jpg").write_bytes(b"x")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only Unicode names")
    with pytest.raises(DataError, match=r"must be valid Unicode; 1 \('tin/b\\udcff.jpg'\) are not"):
        read(tmp_path).build_frames()


def test_a_train_folder_of_loose_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        read(write_images(tmp_path, "train/1.jpg", "val/tin.jpg"))
