"""Karpathy's split files: captions are titles, restval is training, nothing has a label."""

import json
from pathlib import Path
from typing import Any

import pytest

from productrec.data.sources.files import find_paths
from productrec.data.sources.reading import detect_format, read_source
from productrec.data.table import check_table
from productrec.data.titles import split_titles
from productrec.errors import DataError


def entry(number: int, split: str, *captions: str, **more: Any) -> dict[str, Any]:
    sentences = [{"raw": caption, "tokens": caption.split(), "imgid": number} for caption in captions]
    return {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences} | more


def write(folder: Path, *entries: dict[str, Any], name: str = "dataset_flickr30k.json") -> Path:
    (folder / name).write_text(json.dumps({"images": list(entries), "dataset": "flickr30k"}), encoding="utf-8")
    return folder


def test_captions_are_titles_one_a_line(tmp_path: Path) -> None:
    write(
        tmp_path,
        entry(1, "train", "A dog.", "Ein Hund\nim Gras."),
        entry(2, "val", "A cat."),
        entry(3, "test", "Deux  chats.", " "),
        entry(4, "train"),
    )
    assert detect_format(tmp_path) == "karpathy"
    rows = read_source(tmp_path, "karpathy")
    assert rows.image_id == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert rows.split == ["train", "val", "test", "train"]
    assert rows.label == [None] * 4
    assert [split_titles(title) for title in rows.title] == [
        ["A dog.", "Ein Hund im Gras."],
        ["A cat."],
        ["Deux  chats."],
        [],
    ]
    images, classes = rows.build_frames()
    check_table(images, classes, "here")
    assert not len(classes)
    (tmp_path / "flickr30k-images").mkdir()
    (tmp_path / "flickr30k-images" / "1.jpg").touch()
    assert find_paths(images, tmp_path)[0] == "flickr30k-images/1.jpg"


def test_the_rest_of_cocos_validation_images_is_trained_on(tmp_path: Path) -> None:
    write(
        tmp_path,
        entry(1, "restval", "A dog.", filepath="val2014", cocoid=522418),
        entry(2, "train", "A cat.", filepath="train2014", cocoid=7),
        name="dataset_coco.json",
    )
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2014.json").write_text("{}")
    assert detect_format(tmp_path) == "karpathy"  # and not coco, whose boxes lie beside it
    rows = read_source(tmp_path, "karpathy")
    assert rows.image_id == ["522418", "7"]
    assert rows.split == ["train", "train"]
    assert rows.notes == ["dataset_coco.json: 1 restval, 1 train; captions are titles, restval joins train"]
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / "1.jpg").touch()
    assert find_paths(rows.build_frames()[0], tmp_path)[0] == "val2014/1.jpg"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"images": [entry(1, "dev", "A dog.")]}, "split must be one of train, restval, val, test; got 'dev'"),
        ({"images": [{"filename": "1.jpg", "split": "train"}]}, "is not Karpathy's JSON .*sentences"),
        ([1], "is not Karpathy's JSON"),
    ],
)
def test_another_json_is_refused(document: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_coco.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        read_source(tmp_path, "karpathy")


def test_two_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path, entry(1, "train", "A dog."))
    write(tmp_path, entry(1, "train", "A dog."), name="dataset_coco.json")
    with pytest.raises(DataError, match=r"got dataset_coco.json and dataset_flickr30k.json. Put each beside"):
        read_source(tmp_path, "karpathy")
