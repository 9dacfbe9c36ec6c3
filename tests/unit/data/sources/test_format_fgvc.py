"""FGVC JSON: both forms, what stays to the letter, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from productrec.data.sources.reading import read_source
from productrec.data.sources.rows import SourceRows
from productrec.errors import DataError


def read(source: Path) -> SourceRows:
    return read_source(source, "fgvc_json")


def write(folder: Path, **documents: Any) -> Path:
    """Write one ``NAME.json`` a keyword; text is written as it stands."""
    for name, document in documents.items():
        text = document if isinstance(document, str) else json.dumps(document)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def refuse(folder: Path, **documents: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(write(folder, **documents))
    return str(caught.value)


def triples(rows: SourceRows) -> list[tuple[str, str, int | None]]:
    return list(zip(rows.image_id, rows.split, rows.label, strict=True))


TRAIN = {"images": [{"id": "a.jpg", "class": 3, "url": "https://x/a"}, {"id": "b.jpg", "class": 4}]}


def test_the_form_with_a_class_in_each_image(tmp_path: Path) -> None:
    rows = read(
        write(
            tmp_path,
            train=TRAIN,
            val={"images": [{"id": "c.jpg", "class": 3, "title": "A tin"}]},
            test={"images": [{"id": "d.jpg", "url": None}]},
        )
    )
    assert triples(rows) == [
        ("a.jpg", "train", 3),
        ("b.jpg", "train", 4),
        ("c.jpg", "val", 3),
        ("d.jpg", "test", None),
    ]
    assert rows.url == ["https://x/a", None, None, None]
    assert rows.title == [None, None, "A tin", None]
    assert rows.path == [None] * 4


def test_the_form_with_separate_annotations(tmp_path: Path) -> None:
    rows = read(
        write(
            tmp_path,
            train={
                "images": [{"id": 7, "file_name": "train/a.jpg"}, {"id": 8, "file_name": "train/b.jpg"}],
                "annotations": [{"image_id": 8, "category_id": 1}, {"image_id": 7, "category_id": 0}],
                "categories": [{"id": 0, "name": "tin"}, {"id": 1, "name": "jar"}, {"id": 2, "name": "box"}],
            },
            test={"images": [{"id": 9, "file_name": "test/c.jpg"}]},
        )
    )
    assert triples(rows) == [("7", "train", 0), ("8", "train", 1), ("9", "test", None)]
    assert rows.path == ["train/a.jpg", "train/b.jpg", "test/c.jpg"]
    assert rows.class_names == {0: "tin", 1: "jar", 2: "box"}
    _, classes = rows.build_frames()
    assert classes["id"].tolist() == [0, 1, 2]


def test_ids_stay_as_they_are(tmp_path: Path) -> None:
    ids = ["000123", "NA", "1e5", "a,b", "=1+1", " b ", "é", "e\u0301", "0x10", "None"]
    rows = read(write(tmp_path, train={"images": [{"id": name, "class": 0} for name in ids]}))
    assert rows.image_id == ids
    images, _ = rows.build_frames()
    assert images["image_id"].tolist() == ids


@pytest.mark.parametrize(
    "image",
    [
        {"id": "\udc00"},
        {"id": "a", "title": "x\ud800"},
        {"id": "a", "url": "\udfff"},
        {"id": "a", "file_name": "\udc00"},
    ],
)
def test_text_that_is_no_unicode_is_refused(tmp_path: Path, image: dict[str, str]) -> None:
    rows = read(write(tmp_path, train={"images": [image | {"class": 1}]}))
    with pytest.raises(DataError, match="must be valid Unicode"):
        rows.build_frames()
    rows = read(write(tmp_path, train={"images": [{"id": "\U0001f96b é", "class": 1}]}))
    assert rows.build_frames()[0]["image_id"].tolist() == ["\U0001f96b é"]


def test_labels_in_the_test_file_are_not_read(tmp_path: Path) -> None:
    rows = read(
        write(tmp_path, train=TRAIN, test={"images": [{"id": "t", "class": 4}, {"id": "u", "class": "secret"}]})
    )
    assert triples(rows)[2:] == [("t", "test", None), ("u", "test", None)]


def test_a_class_may_be_given_as_text_and_may_be_negative(tmp_path: Path) -> None:
    images = [{"id": "a", "class": "12"}, {"id": "b", "class": -1}]
    assert read(write(tmp_path, train={"images": images})).label == [12, -1]


@pytest.mark.parametrize(
    "value",
    ["tin", "", 3.5, 3.0, True, [3], {"id": 3}, "--5", "²", "1_000", "0x10", 10**30, "٣"],
    ids=lambda value: repr(value)[:12],
)
def test_a_class_that_is_no_whole_number_is_refused(tmp_path: Path, value: object) -> None:
    message = refuse(tmp_path, train={"images": [{"id": "a.jpg", "class": value}]})
    assert "the class of image 'a.jpg' must be a whole number; got" in message


def test_a_training_image_without_a_class_is_left_for_the_table_to_refuse(tmp_path: Path) -> None:
    assert read(write(tmp_path, train={"images": [{"id": "a"}, {"id": "b", "class": None}]})).label == [
        None,
        None,
    ]


@pytest.mark.parametrize(
    "text", ["", "{", "<!DOCTYPE html>", '{"images": [', "{'images': []}", "[" * 200_000], ids=range(6)
)
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    assert "train.json: is not valid JSON" in refuse(tmp_path, train=text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_bytes(b"\x80\x81")
    with pytest.raises(DataError, match=r"train.json: is not valid JSON"):
        read(tmp_path)


@pytest.mark.parametrize("document", [[], 3, {}, {"images": None}, {"images": {"a": 1}}, {"image": []}])
def test_json_of_another_form_is_refused(tmp_path: Path, document: object) -> None:
    assert "must hold an object with a list 'images'" in refuse(tmp_path, train=document)


@pytest.mark.parametrize("entry", ["a.jpg", {"file_name": "a.jpg"}, {"id": None, "class": 1}, None, ["a", 1]])
def test_an_image_without_an_id_is_refused(tmp_path: Path, entry: object) -> None:
    assert "every image must be an object with an 'id'" in refuse(tmp_path, train={"images": [entry]})


@pytest.mark.parametrize(
    "more",
    [
        {"annotations": [{"image_id": 1}]},
        {"annotations": [3]},
        {"annotations": 3},
        {"categories": [{"id": 1}]},
        {"categories": [{"id": "x", "name": "y"}]},
    ],
)
def test_annotations_of_another_form_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    assert "annotations must give image_id and category_id" in refuse(tmp_path, train=TRAIN | more)


def test_a_source_without_training_images_is_refused(tmp_path: Path) -> None:
    assert "train.json: must exist in an FGVC source" in refuse(tmp_path, val=TRAIN)


def test_a_damaged_validation_file_is_refused_too(tmp_path: Path) -> None:
    assert "val.json: is not valid JSON" in refuse(tmp_path, train=TRAIN, val="{")


# ---------------------------------------------------------------- classes


def test_the_product_tree_gives_each_class_its_path(tmp_path: Path) -> None:
    tree = {"food": {"tins": [3, 5], "jars": {"glass": [4]}}, "tools": [9]}
    rows = read(write(tmp_path, train=TRAIN, product_tree=tree))
    assert rows.class_paths == {3: "food/tins", 5: "food/tins", 4: "food/jars/glass", 9: "tools"}
    _, classes = rows.build_frames()
    assert classes["id"].tolist() == [3, 4, 5, 9]
    assert classes["path"].tolist() == ["food/tins", "food/jars/glass", "food/tins", "tools"]


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"food": 3}, "must nest categories down to lists of class ids; got '3'"),
        ({"food": ["tin"]}, "must be a whole number; got 'tin'"),
        ("{", "is not valid JSON"),
    ],
)
def test_a_product_tree_of_another_form_is_refused(tmp_path: Path, tree: object, text: str) -> None:
    message = refuse(tmp_path, train=TRAIN, product_tree=tree)
    assert "product_tree.json" in message
    assert text in message


def test_class_names_and_descriptions_come_from_a_csv(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text(
        'class,name,description\n3,"Tin, small",Red\n4,Jar,\n²,odd,\nx,odd,\n5,Späti,\n', encoding="utf-8-sig"
    )
    rows = read(write(tmp_path, train=TRAIN))
    assert rows.class_names == {3: "Tin, small", 4: "Jar", 5: "Späti"}
    assert rows.class_descriptions == {3: "Red"}
    _, classes = rows.build_frames()
    assert classes["name"].tolist() == ["Tin, small", "Jar", "Späti"]


def test_class_files_of_other_columns_are_let_be(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("a,b\n1,2\n")
    rows = read(write(tmp_path, train=TRAIN))
    assert rows.class_names == {}
    _, classes = rows.build_frames()
    assert classes["name"].tolist() == ["3", "4"]


def test_a_class_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_bytes(b"class,name\n1,\xff\n")
    assert "classes.csv: cannot be read as UTF-8 CSV" in refuse(tmp_path, train=TRAIN)
