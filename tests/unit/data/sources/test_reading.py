"""The format that a source has, and sources of the retrieval benchmarks, of COCO, of tables by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from productrec.data.sources.reading import detect_format, read_source
from productrec.data.table import check_table
from productrec.errors import DataError


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def read(folder: Path, expected: str):
    assert detect_format(folder) == expected
    rows = read_source(folder, expected)
    images, classes = rows.build_frames()
    check_table(images, classes, "here")
    return rows


def test_stanford_online_products(tmp_path: Path) -> None:
    head = "image_id class_id super_class_id path\n"
    write(
        tmp_path,
        Ebay_train_dot_txt=head + "1 1 1 bicycle_final/a b.JPG\n2 1 1 bicycle_final/c.JPG\n",
        Ebay_test_dot_txt=head + "3 2 1 lamp_final/d.JPG\n",
    )
    rows = read(tmp_path, "sop")
    assert rows.image_id == ["bicycle_final/a b.JPG", "bicycle_final/c.JPG", "lamp_final/d.JPG"]
    assert rows.split == ["train", "train", "test"]
    assert rows.label == [1, 1, 2]
    assert rows.class_paths == {1: "bicycle", 2: "lamp"}
    (tmp_path / "Ebay_test.txt").write_text(head + "3 two 1 lamp/d.JPG\n")
    with pytest.raises(DataError, match=r"Ebay_test.txt, line 2: a class must be a whole number; got 'two'"):
        read_source(tmp_path, "sop")
    (tmp_path / "Ebay_test.txt").write_text(head + "3 99999999999999999999 1 lamp/d.JPG\n")  # more than 64 bits hold
    with pytest.raises(DataError, match=r"line 2: a class must be a whole number; got '99999999999999999999'"):
        read_source(tmp_path, "sop")


def test_in_shop_tells_queries_from_gallery(tmp_path: Path) -> None:
    lines = ["3", "image_name item_id evaluation_status"]
    lines += ["img/WOMEN/Dresses/id_01/a.jpg  id_01  train", "img/MEN/Tees/id_07/b.jpg id_07 query"]
    lines += ["img/MEN/Tees/id_07/c.jpg id_07 gallery"]
    write(tmp_path, list_eval_partition_dot_txt="\n".join(lines))
    rows = read(tmp_path, "in_shop")
    assert rows.role == [None, "query", "gallery"]
    assert rows.split == ["train", "test", "test"]
    assert rows.class_names == {0: "id_01", 1: "id_07"}
    assert rows.class_paths == {0: "WOMEN/Dresses", 1: "MEN/Tees"}
    (tmp_path / "list_eval_partition.txt").write_text("\n".join([*lines, "img/x id_1 probe"]))
    with pytest.raises(DataError, match="line 6: the status must be train, query or gallery; got 'probe'"):
        read_source(tmp_path, "in_shop")


def test_cub_is_split_by_class(tmp_path: Path) -> None:
    write(
        tmp_path,
        images_dot_txt="1 001.Auk/a.jpg\n2 101.Owl/b.jpg\n",
        image_class_labels_dot_txt="1 1\n2 101\n",
        classes_dot_txt="1 001.Auk\n101 101.Owl\n",
        images__x="",
    )
    rows = read(tmp_path, "cub")
    assert rows.split == ["train", "test"]
    assert rows.path == ["images/001.Auk/a.jpg", "images/101.Owl/b.jpg"]
    assert rows.class_names == {1: "Auk", 101: "Owl"}


def test_cars_is_split_by_class(tmp_path: Path) -> None:
    from scipy.io import savemat

    entries = np.array(
        [("car_ims/1.jpg", 1, 0), ("car_ims/2.jpg", 99, 1)],
        dtype=[("relative_im_path", "O"), ("class", "O"), ("test", "O")],
    )
    names = np.array([f"car {number}" for number in range(1, 100)], dtype=object)
    savemat(tmp_path / "cars_annos.mat", {"annotations": entries, "class_names": names})
    rows = read(tmp_path, "cars")
    assert rows.split == ["train", "test"]
    assert rows.label == [1, 99]
    assert rows.class_names[99] == "car 99"
    (tmp_path / "cars_annos.mat").write_text("nothing")
    with pytest.raises(DataError, match="must hold 'annotations' and 'class_names' of Cars196"):
        read_source(tmp_path, "cars")


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "categories": [{"id": 5, "name": "tin", "supercategory": "food"}],
    "annotations": [
        {"id": 10, "image_id": 1, "category_id": 5, "bbox": [10, 20, 40, 20]},
        {"id": 11, "image_id": 1, "category_id": 5, "bbox": [0, 0, 5, 5]},
    ],
}


@pytest.mark.parametrize("name", ["train.json", "annotations/instances_train2017.json"])
def test_every_coco_box_is_a_row(tmp_path: Path, name: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / name).write_text(json.dumps(COCO))
    rows = read(tmp_path, "coco")
    assert rows.image_id == ["1#10", "1#11"]
    assert rows.path == ["a.jpg", "a.jpg"]
    assert rows.box[0] == "6.00,18.00,48.00,24.00"
    assert rows.class_names == {5: "tin"}
    assert rows.class_paths == {5: "food"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 0, 4]}, "must have a box x, y, width, height"),
        ({"bbox": [1, 2, float("nan"), 4]}, "must have a box x, y, width, height"),
        ({"image_id": 9}, "is of image 9, which is not listed"),
        ({"category_id": "tin"}, "a category's id must be a whole number"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path: Path, change: dict, message: str) -> None:
    document = COCO | {"annotations": [COCO["annotations"][0] | change]}
    (tmp_path / "train.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        read_source(tmp_path, "coco")


def test_a_table_by_hand(tmp_path: Path) -> None:
    write(
        tmp_path,
        images_dot_csv="image_id,split,label,path,title,role,box\n000123,train,tin,x/a.jpg,A tin,,\nNA,test,,,,,\n"
        '7,train,cup,c.jpg,,query,"1,2,3,4"\n',
    )
    rows = read(tmp_path, "table")
    assert rows.image_id == ["000123", "NA", "7"]
    assert rows.label == [1, None, 0]
    assert rows.title == ["A tin", None, None]
    assert rows.role == [None, None, "query"]
    for text, message in (
        ("id,label\n1,2\n", "must have the column image_id"),
        ("image_id,colour\n1,2\n", "may have split, label"),
        ("image_id,split\n1,dev\n", "split must be one of train, val, test; got 1 .dev."),
        ("image_id,label\n,2\n", "row 1 has none"),
    ):
        (tmp_path / "images.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read_source(tmp_path, "table")
    (tmp_path / "images.csv").write_text('image_id,label,box\n1,2,"1,2,3"\n')
    rows = read_source(tmp_path, "table")
    with pytest.raises(DataError, match="a box must be four numbers"):
        check_table(*rows.build_frames(), "here")


def test_titles_without_labels_are_a_catalogue(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,title\n6680.jpg,Shoe\n9969.jpg,Shirt\n")
    rows = read(tmp_path, "csv")
    assert rows.label == [None, None]
    assert rows.title == ["Shoe", "Shirt"]
    (tmp_path / "train.csv").write_text("id,title,label\n1.jpg,Shoe,3\n2.jpg,Shirt,\n")
    assert read(tmp_path, "csv").label == [3, None]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["00000.tar", "00001.tar"], "webdataset"),
        (["train-000000.tar", "val-000000.tar.gz"], "webdataset"),
        (["shards.tar"], "webdataset"),
        (["train-000000.tar", "extra/notes.txt"], "webdataset"),
        (["mug/a.jpg", "backup.tar"], "folders"),
        (["train.csv", "images-0.tar"], "csv"),
        (["images.csv", "train-0.tar"], "table"),
        (["dataset_dict.json", "train/state.json"], "huggingface"),
        (["dataset_info.json", "state.json"], "huggingface"),
        (["dataset_info.json", "mug/a.jpg"], "folders"),
    ],
)
def test_shards_and_saved_datasets_are_told_apart(tmp_path: Path, files: list[str], expected: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert detect_format(tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train.json", "images/a.jpg"], "fgvc_json"),
        (["train.csv", "train/a.jpg"], "csv"),
        (["train.json", "train.csv"], "fgvc_json"),
        (["tin/a.jpg"], "folders"),
    ],
)
def test_the_format_is_seen_from_the_files(tmp_path: Path, files: list[str], expected: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert detect_format(tmp_path) == expected


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one folder a class; got 0 \(\)"):
        detect_format(tmp_path)
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / ".git").mkdir()
    with pytest.raises(DataError, match=r"must hold images.csv .* train.csv .*; got 2 \(.git, readme.txt\)"):
        detect_format(tmp_path)


def test_a_source_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "absent"):
        with pytest.raises(DataError, match="no such folder"):
            detect_format(tmp_path / name)
