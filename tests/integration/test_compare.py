"""productrec compare: two runs on the images that both answered, as a user types it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from productrec.data.table import load_table, save_table
from productrec.delimited import unguard_cell
from productrec.recognition.probabilities import load_probabilities, write_probabilities

TINY = "runs/tiny"


def get_labels(place: Path) -> dict[str, int]:
    images = pd.read_parquet(place / "data/tiny/images.parquet").dropna(subset="label")
    return dict(zip(images["image_id"], images["label"].astype(int).tolist(), strict=True))


def write(
    place: Path, folder: str, sure: dict[str, int], *, split: str = "val", order: int = 1, most: int = 99
) -> None:
    """Predictions that name a class for each image with 0.9, in the table's order of classes or backwards (-1)."""
    shown = load_probabilities(place / TINY / "predictions/plain/val")
    class_ids, keys, names = (list(one)[::order] for one in (shown.class_ids, shown.keys, shown.names))
    class_ids, keys, names = class_ids[:most], keys[:most], names[:most]
    writing = write_probabilities(
        place / folder / f"predictions/plain/{split}",
        ids=list(sure),
        class_ids=class_ids,
        names=names,
        fallback=[],
        made={"views": "plain"},
        inputs={"table": shown.table_fingerprint or ""},
        settings={"split": split},
        keys=keys,
        table=place / "data/tiny",
    )
    with writing as values:
        values[:] = 0.1 / (len(class_ids) - 1)
        for row, class_id in enumerate(sure.values()):
            values[row, class_ids.index(class_id)] = 0.9


@pytest.fixture
def pair(finished):
    """Two runs, ``runs/a`` and ``runs/b``, of 18 validation images: a is wrong on 3, b on one of these and another."""
    labels = {image_id: label for image_id, label in get_labels(finished).items() if image_id in get_val(finished)}
    ids = sorted(labels)
    wrong = {image_id: next(one for one in set(labels.values()) if one != labels[image_id]) for image_id in ids}
    a = labels | {image_id: wrong[image_id] for image_id in ids[:3]}
    b = labels | {image_id: wrong[image_id] for image_id in (ids[0], ids[7])}
    for name, order in (("a", 1), ("b", -1)):
        recipe = yaml.safe_load((finished / TINY / "recipe.yaml").read_text())
        recipe["train"]["epochs"] = 2 if name == "a" else 5
        (finished / "runs" / name).mkdir()
        (finished / "runs" / name / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        write(finished, f"runs/{name}", a if name == "a" else b, order=order)
    return finished, ids, labels


def get_val(place: Path) -> list[str]:
    return load_probabilities(place / TINY / "predictions/plain/val").ids


def test_what_changed_is_told_counted_and_written(pair, productrec):
    place, ids, labels = pair
    done = productrec(
        "compare", "runs/a", "runs/b", "--json", "--bootstrap", "200", "--out", "out/changed.csv", "--plots", "plots"
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["names"] == ["a", "b"] and told["split"] == "validation images"
    assert [told["paired"][key] for key in ("both", "only_first", "only_second", "neither")] == [14, 1, 2, 1]
    top_1 = told["paired"]["figures"][0]
    assert (top_1["first"], top_1["second"]) == pytest.approx((15 / 18, 16 / 18))
    assert top_1["low"] <= top_1["difference"] == pytest.approx(1 / 18) and top_1["difference"] <= top_1["high"]
    assert [(one["image_id"], one["change"]) for one in told["images"]] == [
        (ids[7], "lost"),
        *((image_id, "gained") for image_id in ids[1:3]),
    ]
    assert told["images"][0]["first_probability"] == pytest.approx(0.9)
    assert sum(one["gained"] for one in told["classes"]) == 2 and sum(one["lost"] for one in told["classes"]) == 1
    assert told["settings"] == [{"key": "train.epochs", "first": "2", "second": "5"}]
    assert any("told by their keys" in note for note in told["notes"])
    with (place / "out/changed.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [unguard_cell(row["image_id"]) for row in rows] == [ids[7], ids[1], ids[2]]
    assert rows[0]["truth"] == rows[0]["first"] == str(labels[ids[7]]) != rows[0]["second"]
    assert sorted(path.name for path in (place / "plots").iterdir()) == ["accuracy.svg", "calibration.svg", "gains.svg"]
    again = productrec("compare", "runs/a", "runs/b", "--out", "out/changed.csv")
    assert again.code == 4 and "--replace" in again.err


def test_a_person_reads_tables_and_what_to_do_next(pair, productrec):
    place, ids, _ = pair
    done = productrec("compare", "runs/a", "runs/b", "--shown", "1")
    assert done.code == 0, done.err
    for text in ("validation images, answered by both: 18", "83.3", "88.9", "+5.6", "train.epochs", ids[7]):
        assert text in done.out
    assert ids[1] not in done.out and "3, the first 1" in done.out
    assert "only b right 2 (wrong to right), only a right 1 (right to wrong)" in done.err
    assert "productrec report runs/b" in done.err.splitlines()[-1]
    other_way = productrec("compare", "runs/b", "runs/a")
    assert "-5.6" in other_way.out
    png = productrec("compare", "runs/a", "runs/b", "--plots", "p", "--plots-as", "png")
    assert png.code == 0 and (place / "p/gains.png").read_bytes().startswith(b"\x89PNG")


def test_a_real_run_is_compared_with_its_other_views_by_naming_folders(finished, productrec):
    shutil.copytree(f"{TINY}/predictions/plain", f"{TINY}/predictions/flip")
    done = productrec("compare", f"{TINY}/predictions/plain", f"{TINY}/predictions/flip", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["names"] == ["plain", "flip"] and told["images"] == [] and told["paired"]["chance"] == 1.0


def test_only_what_both_answered_is_compared(pair, productrec):
    place, ids, labels = pair
    write(place, "runs/b", {image_id: labels[image_id] for image_id in ids if labels[image_id] != 0}, most=5, order=-1)
    done = productrec("compare", "runs/a", "runs/b", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["paired"]["both"] + told["paired"]["only_second"] == 15
    assert any("3 images of a are left out, which b did not answer" in note for note in told["notes"])
    assert any("6 of a, 5 of b, 5 of both" in note for note in told["notes"])


def test_an_image_of_another_class_in_each_table_is_left_out(pair, productrec):
    place, ids, _ = pair
    table = load_table(Path("data/tiny"))
    images = table.images.copy()
    row = images.index[images["image_id"] == ids[5]][0]
    images.loc[row, "label"] = (images.loc[row, "label"] + 1) % 6
    save_table(place / "data/other", images, table.classes, root=table.root, inputs={}, settings={"x": 1}, sample=None)
    manifest = json.loads((place / "runs/b/predictions/plain/val/manifest.json").read_text())
    manifest["notes"]["table"] = "../../../../../data/other"
    (place / "runs/b/predictions/plain/val/manifest.json").write_text(json.dumps(manifest))
    done = productrec("compare", "runs/a", "runs/b", "--json")
    assert done.code == 0, done.err
    notes = " ".join(json.loads(done.out)["notes"])
    assert f"1 ({ids[5]}) images have another class in each table" in notes and "The image tables differ" in notes


def test_training_images_out_of_fold_are_compared_where_there_are_no_validation_images(pair, productrec):
    place, _, _ = pair
    labels = get_labels(place)
    train = {key: label for key, label in labels.items() if label is not None and key not in get_val(place)}
    train = {key: int(label) for key, label in list(train.items())[:20] if label == label}
    for name in ("a", "b"):
        folder = place / f"runs/{name}.folds"
        folder.mkdir()
        shutil.copy(place / f"runs/{name}/recipe.yaml", folder)
        write(place, f"runs/{name}.folds/out_of_fold/{name}", train, split="train")
    done = productrec("compare", "runs/a.folds", "runs/b.folds", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["split"] == "training images, each out of fold" and told["paired"]["both"] == len(train)
    mixed = productrec("compare", "runs/a", "runs/b.folds")
    assert mixed.code == 4
    assert "runs/a has those of validation images, runs/b.folds those of training images" in mixed.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("runs/a", "runs/c"), 2, "no such run"),
        (("runs/a", "data"), 4, "must be the folder of a run or of an ensemble"),
        (("runs/a", "runs/a"), 2, "have the same predictions"),
        (("runs/a", "runs/empty"), 4, "Run `productrec predict runs/empty`"),
        (("runs/a", "runs/b", "--split", "test"), 4, "has no predictions of test images"),
        (("runs/a", "runs/b", "--split", "train"), 4, "--folds"),
        (("runs/a", "runs/b", "--views", "zoom"), 4, "--views zoom"),
        (("runs/a", "runs/b", "--split", "all"), 2, "must be val, train or test"),
        (("runs/a", "runs/b", "--plots", "x", "--plots-as", "bmp"), 2, "svg, png, pdf"),
        (("runs/a", "runs/b", "--replace"), 2, "goes with"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_way_out(pair, productrec, arguments, code, said):
    place, _, _ = pair
    (place / "runs/empty").mkdir()
    shutil.copy(place / "runs/a/recipe.yaml", place / "runs/empty")
    done = productrec("compare", *arguments)
    assert done.code == code
    assert said in " ".join(done.err.split())
    assert not (place / "x").exists()


def test_runs_of_other_images_are_refused(pair, productrec):
    place, ids, labels = pair
    write(place, "runs/b", {f"other {image_id}": labels[image_id] for image_id in ids})
    done = productrec("compare", "runs/a", "runs/b")
    assert done.code == 3 and "0 images in common" in done.err
    assert np.isfinite(load_probabilities(place / "runs/b/predictions/plain/val").values).all()
