"""Saved datasets of Hugging Face become image files and a table; what they name outside their folder is not read."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from productrec.data.sources.files import find_paths
from productrec.data.sources.formats.huggingface import export_dataset
from productrec.data.sources.reading import detect_format, read_source
from productrec.data.table import check_table
from productrec.errors import DataError
from productrec.recipe.data import DataSettings
from productrec.stages.ingest import run_ingest


def picture(colour: str = "red", kind: str = "PNG") -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": None}


NAMES = datasets.ClassLabel(names=["mug", "bowl", "jug"])


def build(label_kind: Any = NAMES, **columns: list) -> datasets.Dataset:
    kinds = {"image": datasets.Image(), "label": label_kind}
    features = {name: kinds.get(name, datasets.Value("string")) for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def save(dataset: Any, folder: Path) -> Path:
    dataset.save_to_disk(str(folder))
    return folder


def read(source: Path, folder: Path) -> tuple[pd.DataFrame, dict[int, str]]:
    unpacked = export_dataset(source, folder)
    rows = read_source(unpacked.folder, "huggingface")
    images, classes = rows.build_frames()
    check_table(images, classes, "here")
    images["path"] = find_paths(images, unpacked.folder)
    return images.set_index("image_id"), rows.class_names


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    train = build(image=[picture("red"), picture("blue", "JPEG"), None], label=[0, 1, 1], title=["A mug", None, " "])
    val = build(image=[picture("green", "WEBP")], label=[0])
    test = build(image=[picture()], label=[2])
    return save(datasets.DatasetDict(train=train, validation=val, test=test), tmp_path / "set")


def test_rows_become_files_and_a_table(saved: Path, tmp_path: Path) -> None:
    assert detect_format(saved) == "huggingface"
    images, names = read(saved, tmp_path / "out")
    assert images["split"].to_dict() == {
        "train-000000": "train",
        "train-000001": "train",
        "train-000002": "train",
        "validation-000000": "val",
        "test-000000": "test",
    }
    assert names == {0: "bowl", 1: "mug"}
    assert [None if pd.isna(label) else names[label] for label in images["label"]] == [
        "mug",
        "bowl",
        "bowl",
        "mug",
        None,
    ]
    assert images["title"].dropna().to_dict() == {"train-000000": "A mug"}
    suffixes = [None if pd.isna(path) else Path(path).suffix for path in images["path"]]
    assert suffixes == [".png", ".jpg", None, ".webp", ".png"]
    first = tmp_path / "out" / "files" / images.loc["train-000000", "path"]
    assert first.read_bytes() == picture("red")["bytes"]


def test_a_single_dataset_with_ids_and_names(tmp_path: Path) -> None:
    columns = {"image": [picture()] * 2, "label": ["mug", "bowl"], "image_id": ["007", "NA"]}
    source = save(build(datasets.Value("string"), **columns), tmp_path / "set")
    assert detect_format(source) == "huggingface"
    images, names = read(source, tmp_path / "out")
    assert images["label"].to_dict() == {"007": 1, "NA": 0}
    assert names == {0: "bowl", 1: "mug"}
    assert set(images["split"]) == {"train"}


def test_a_single_dataset_keeps_its_split_and_its_format_does_not_matter(tmp_path: Path) -> None:
    features = datasets.Features({"photo": datasets.Image(), "kind": NAMES, "clip": datasets.Audio()})
    table = datasets.Dataset.from_dict(
        {"photo": [picture()], "kind": [-1], "clip": [None]}, features=features, split=datasets.Split.VALIDATION
    )
    images, _ = read(save(table.with_format("numpy"), tmp_path / "set"), tmp_path / "out")
    assert images["split"].to_dict() == {"validation-000000": "val"}
    assert images["label"].isna().all()


def test_whole_numbers_stay_class_ids(tmp_path: Path) -> None:
    source = save(build(datasets.Value("int64"), image=[picture()] * 2, label=[12, 7]), tmp_path / "set")
    assert read(source, tmp_path / "out")[0]["label"].tolist() == [12, 7]


def test_an_unchanged_dataset_is_not_exported_again(saved: Path, tmp_path: Path) -> None:
    image = export_dataset(saved, tmp_path / "out").folder / "images/train/0000/000000.png"
    before = image.stat().st_mtime_ns
    export_dataset(saved, tmp_path / "out")
    assert image.stat().st_mtime_ns == before
    save(build(image=[picture("white")], label=[0]), tmp_path / "other")
    export_dataset(tmp_path / "other", tmp_path / "out")
    assert image.read_bytes() == picture("white")["bytes"]


def test_an_image_outside_is_refused_and_one_inside_is_read(tmp_path: Path) -> None:
    source = save(build(image=[picture()], label=[0]), tmp_path / "set")
    arrow = next(source.glob("*.arrow"))
    with pa.ipc.open_stream(arrow) as stream:
        schema = stream.schema
    secret = tmp_path / "secret.png"
    for path in (secret, source / "inside.png", source.parent / "set2.png"):
        path.write_bytes(picture("blue")["bytes"])
    (source / "link.png").symlink_to(secret)

    def point_at(path: str) -> None:
        values = [{"bytes": None, "path": path}]
        batch = pa.record_batch([pa.array(values, schema.field("image").type), pa.array([0], pa.int64())], schema)
        with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            stream.write_batch(batch)

    hostile = [str(secret), "../secret.png", "../set2.png", "link.png", "/etc/passwd", "https://example.org/a.png", "."]
    for path in [*hostile, "not there.png", "a\0b"]:
        point_at(path)
        with pytest.raises(DataError, match="row 0: an image must be stored in the dataset, or lie in its folder; got"):
            export_dataset(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    for path in ("inside.png", str(source / "inside.png")):
        point_at(path)
        assert read(source, tmp_path / "out")[0]["path"].tolist() == ["images/train/0000/000000.png"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dataset_dict.json", {"splits": ["../set"]}, r"splits must be train, validation or test; got 1 \(../set\)"),
        ("dataset_dict.json", {"splits": ["train/../../set"]}, "splits must be train, validation or test"),
        ("dataset_dict.json", {"splits": ["train", "heldout"]}, r"got 1 \(heldout\)"),
        ("dataset_dict.json", {"splits": []}, "splits must be train, validation or test"),
        ("dataset_dict.json", {"splits": None}, "splits must be train, validation or test"),
        (
            "train/state.json",
            {"_data_files": [{"filename": "../a.arrow"}]},
            r"beside it; got 1 \(../a.arrow\)",
        ),
        ("train/state.json", {"_data_files": [{"filename": "/a.arrow"}]}, "must lie beside it"),
        ("train/state.json", {"_data_files": None}, "must lie beside it"),
        ("train/state.json", {"_data_files": [{"filename": "none.arrow"}]}, "cannot be unpacked"),
    ],
)
def test_a_description_that_leads_elsewhere_is_refused(saved: Path, name: str, change: dict, message: str) -> None:
    document = json.loads((saved / name).read_text())
    (saved / name).write_text(json.dumps(document | change))
    with pytest.raises(DataError, match=message):
        export_dataset(saved, saved.parent / "out")
    assert not (saved.parent / "out").exists()


def test_damage_is_refused(saved: Path, tmp_path: Path) -> None:
    arrow = next((saved / "train").glob("*.arrow"))
    data = arrow.read_bytes()
    for damaged in (b"", b"nothing", data[: len(data) // 2]):
        arrow.write_bytes(damaged)
        with pytest.raises(DataError, match="train: cannot be unpacked"):
            export_dataset(saved, tmp_path / "out")
    (saved / "train" / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="train: cannot be unpacked"):
        export_dataset(saved, tmp_path / "out")
    (saved / "test" / "state.json").write_text("[]")
    with pytest.raises(DataError, match=r"state.json: must be an object; got \[\]"):
        export_dataset(saved, tmp_path / "out")
    (saved / "dataset_dict.json").write_text("{")
    with pytest.raises(DataError, match="dataset_dict.json: cannot be read"):
        export_dataset(saved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    source = save(build(image=[picture()], label=[0]), tmp_path / "set")
    arrow = next(source.glob("*.arrow"))
    with pa.ipc.open_stream(arrow) as stream:
        schema = stream.schema
    values = [{"bytes": bytes(1 << 20), "path": None}] * 80
    columns = [pa.array(values, schema.field("image").type), pa.array([0] * 80, pa.int64())]
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_stream(file, schema, options=options) as stream:
        stream.write_batch(pa.record_batch(columns, schema))
    with pytest.raises(DataError, match="a bomb"):
        export_dataset(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [None], "label": [5]}, "a label must be one of 3 classes; got 5"),
        ({"image": [None], "label": [0], "id": [None]}, "an id must be a text or a whole number; got None"),
        ({"label": [0]}, r"one column must be of the type Image, .* got 1 \(label\)"),
    ],
)
def test_what_cannot_be_understood_is_named(tmp_path: Path, columns: dict, message: str) -> None:
    table = build(datasets.Value("int64") if columns["label"] == [5] else NAMES, **columns)
    source = save(table, tmp_path / "set")
    if columns["label"] == [5]:  # the library itself would not store it
        info = json.loads((source / "dataset_info.json").read_text())
        info["features"]["label"] = {"names": NAMES.names, "_type": "ClassLabel"}
        (source / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=message):
        export_dataset(source, tmp_path / "out")


def test_several_classes_or_images_must_be_told_apart(tmp_path: Path) -> None:
    features = datasets.Features({"fine": NAMES, "coarse": NAMES, "image": datasets.Image(), "mask": datasets.Image()})
    columns = {"fine": [0], "coarse": [1], "image": [picture()], "mask": [picture("white")]}
    table = datasets.Dataset.from_dict(columns, features=features)
    with pytest.raises(DataError, match=r"one must be named label; got 2 \(fine, coarse\)"):
        export_dataset(save(table, tmp_path / "two"), tmp_path / "out")
    named = table.rename_column("coarse", "label")
    images, names = read(save(named, tmp_path / "one"), tmp_path / "out")
    assert names == {0: "bowl"}
    assert (tmp_path / "out/files" / images["path"].iloc[0]).read_bytes() == picture()["bytes"]
    with pytest.raises(DataError, match=r"of several one named image; got 2 \(photo, mask\)"):
        export_dataset(save(named.rename_column("image", "photo"), tmp_path / "three"), tmp_path / "out")


def test_several_captions_are_titles_one_a_line(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Sequence(datasets.Value("string"))})
    captions = [["A dog.", "Ein Hund\nim Gras.", None], []]
    table = datasets.Dataset.from_dict({"image": [picture()] * 2, "caption": captions}, features=features)
    images, names = read(save(table, tmp_path / "set"), tmp_path / "out")
    assert images["title"].tolist()[0] == "A dog.\nEin Hund im Gras."
    assert images["title"].isna().tolist() == [False, True]
    assert names == {}


def test_a_line_break_within_a_title_is_a_space(tmp_path: Path) -> None:
    source = save(build(image=[picture()], label=[0], title=["Oat\nmilk"]), tmp_path / "set")
    assert read(source, tmp_path / "out")[0]["title"].tolist() == ["Oat milk"]


def test_labels_and_ids_are_checked_by_the_table(tmp_path: Path) -> None:
    source = save(build(image=[picture()] * 2, label=[0, None]), tmp_path / "set")
    with pytest.raises(
        DataError, match=r"every training image must have a label or a title; 1 \(train-000001\) have neither"
    ):
        read(source, tmp_path / "out")
    same = build(image=[picture()], label=[0], id=["1"])
    source = save(datasets.DatasetDict(train=same, test=same), tmp_path / "same")
    with pytest.raises(DataError, match=r"image ids must be unique over all splits; 1 \(1\)"):
        read(source, tmp_path / "out")


def test_without_the_library_it_says_how_to_install_it(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"Run pip install 'productrec\[huggingface\]'\."):
        export_dataset(saved, tmp_path / "out")


def test_a_saved_dataset_is_ingested(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "data" / "set"
    data = DataSettings(validation_fraction=0.0)
    ingested = run_ingest(saved, out, data=data)
    assert ingested.by_split == {"train": 3, "val": 1, "test": 1}
    assert ingested.by_status == {"ok": 4, "missing": 1}
    assert ingested.classes == 2
    assert run_ingest(saved, out, data=data).skipped


def test_pictures_given_as_arrays_are_stored_by_the_library(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    source = save(build(image=[Image.fromarray(pixels)], label=[0]), tmp_path / "set")
    images, _ = read(source, tmp_path / "out")
    written = np.asarray(Image.open(tmp_path / "out/files" / images["path"].iloc[0]))
    assert np.array_equal(written, pixels)
