"""Sources as people have them, on the command line: understood, or refused before training; told when they change."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.conftest import draw
from tests.integration.test_bad_input import check_line


def write(root: Path, name: str, *lines: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n")


def read_table(folder: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Images by id, and class ids by name."""
    classes = pd.read_parquet(folder / "classes.parquet")
    images = pd.read_parquet(folder / "images.parquet").set_index("image_id")
    return images, dict(zip(classes["name"], classes["id"], strict=True))


def list_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- understood, and explained alike


def write_coco(root: Path, layout: str) -> None:
    for split, folder, count in (("train", "train", 4), ("val", "valid", 2), ("test", "test", 1)):
        names = [f"{split}{number}.jpg" for number in range(count)]
        document = {
            "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
            "categories": [{"id": 1, "name": "cola"}, {"id": 2, "name": "jam"}],
            "annotations": [
                {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [1, 1, 4, 4]}
                for number in range(count)
            ],
        }
        if layout == "roboflow":
            draw(root / folder, *names)
            (root / folder / "_annotations.coco.json").write_text(json.dumps(document))
        else:
            draw(root / f"{split}2017", *names)
            (root / "annotations").mkdir(exist_ok=True)
            (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))


@pytest.mark.parametrize("layout", ["numbered per file", "roboflow"])
def test_boxes_whose_ids_begin_anew_in_each_file(place, productrec, layout):
    (place / "set").mkdir()
    write_coco(place / "set", layout)
    told = productrec("ingest", "set", "--explain")
    assert told.code == 0, told.err
    assert "train/0#0" in told.err and "label cola (class 1)" in told.err and "label 1" not in told.err
    assert "numbered in each file anew" in told.err
    done = productrec("ingest", "set")
    assert done.code == 0, done.err
    images, numbers = read_table(place / "data/set")
    assert list(images.index) == ["train/0#0", "train/1#1", "train/2#2", "train/3#3", "val/0#0", "val/1#1", "0#0"]
    assert (images["status"] == "ok").all() and images.loc["0#0", "label"] == numbers["cola"]


def test_one_category_of_two_names_is_refused(place, productrec):
    (place / "set").mkdir()
    write_coco(place / "set", "roboflow")
    path = place / "set/valid/_annotations.coco.json"
    path.write_text(path.read_text().replace("jam", "tea"))
    check_line(productrec("ingest", "set"), 3, "category 2 must be 'jam'", "got 'tea'")


@pytest.mark.parametrize("what", ["nothing found", "an id twice", "a torn id", "no such column"])
def test_what_ingest_refuses_explain_refuses(place, productrec, what):
    lines = {"an id twice": ["a,x", "a,x"], "a torn id": ['"a', 'b",x']}.get(what, ["a,x", "b,x"])
    write(place / "set", "train.csv", "id,label" if what != "no such column" else "photo,brand", *lines)
    if what != "nothing found":
        draw(place / "set/images", "a.jpg", "b.jpg")
    word = {"nothing found": "holds none of the 2", "an id twice": "unique", "a torn id": r"'a\nb'"}.get(
        what, "--id-col"
    )
    told, done = productrec("ingest", "set", "--explain"), productrec("ingest", "set")
    check_line(told, 3, word)
    check_line(done, 3, word)
    assert not (place / "data").exists()


def test_explain_leaves_nothing_and_says_columns_names_and_sample(place, productrec):
    draw(place / "race/pictures", "h1.jpg", "h2.jpg", "t1.jpg")
    write(place / "race", "train.csv", "posting_id;image;label_group", "p1;h1.jpg;red tin", "p2;h2.jpg;jar")
    write(place / "race", "sampleSubmission.csv", "posting_id,label_group", "t1,jar")
    archive = shutil.make_archive(str(place / "race"), "zip", place / "race")
    before = list_files(place)
    told = productrec("ingest", archive, "--explain", "--images", place / "race/pictures")
    assert told.code == 0, told.err
    assert list_files(place) == before and not (place / "data").exists()
    assert "ids from posting_id, files from image, labels from label_group, fields between semicolons" in told.err
    assert (
        "sampleSubmission.csv: sample submission, ids in posting_id, 1 label a row in label_group, 1 rows" in told.err
    )
    assert "train p1: file h1.jpg, label red tin (class 1)" in told.err
    assert "test t1: file t1.jpg" in told.err


def test_a_folder_of_all_images_is_no_class(place, productrec):
    draw(place / "set", "images/1.jpg", "images/2.jpg")
    check_line(productrec("ingest", "set"), 3, "got 1 (images)", "--format folders")
    assert productrec("ingest", "set", "--format", "folders", "--validation-fraction", "0").code == 0


def test_labels_below_test_are_kept_and_folders_left_out_are_told(place, shop, productrec):
    draw(shop, "extra/cola/9.jpg")
    for name in ("Train", "Test"):
        (shop / name.lower()).rename(shop / name)
    done = productrec("ingest", "shop", "--validation-fraction", "0")
    assert done.code == 0, done.err
    assert "9 train, 9 test; 3 classes" in done.err and "1 (extra/) beside Train/ hold images" in done.err
    images, numbers = read_table(place / "data/shop")
    assert images.loc["tea/1.jpg", ["split", "label"]].tolist() == ["test", numbers["tea"]]


# ---------------------------------------------------------------- a source that changes


def test_classes_keep_their_numbers_when_a_source_is_ingested_again(place, shop, productrec):
    assert productrec("ingest", "shop").code == 0
    _, before = read_table(place / "data/shop")
    assert before == {"cola": 0, "jam": 1, "tea": 2}
    draw(shop, "train/beer/1.jpg", "train/beer/2.jpg")
    for split in ("train", "test"):
        (shop / split / "jam").rename(shop / split / "marmalade")
    refused = productrec("ingest", "shop")
    check_line(refused, 4, "its source has changed", "added 2 (beer, marmalade)", "--replace-table", "--diff")
    done = productrec("ingest", "shop", "--replace")
    assert done.code == 0, done.err
    assert "since the table before: classes: added 1 (beer), renamed 1 (jam to marmalade)" in done.err
    assert "images: added 2 (train/beer/1.jpg, train/beer/2.jpg), moved 6" in done.err
    images, numbers = read_table(place / "data/shop")
    assert (numbers["cola"], numbers["tea"]) == (0, 2) and {numbers["beer"], numbers["marmalade"]} == {3, 4}
    assert images.loc["train/tea/1.jpg", "label"] == 2
    assert "unchanged" in productrec("ingest", "shop").err
    shutil.rmtree(shop / "train/marmalade")  # the last number is free, and is not given again
    shutil.rmtree(shop / "test/marmalade")
    shutil.rmtree(shop / "train/beer")
    assert productrec("ingest", "shop", "--replace").code == 0
    draw(shop, "train/ale/1.jpg")
    assert productrec("ingest", "shop", "--replace").code == 0
    assert read_table(place / "data/shop")[1]["ale"] == 5


def test_a_difference_is_told_and_nothing_written(place, shop, productrec):
    assert productrec("ingest", "shop", "--out", "data/old").code == 0
    before = {path: path.stat().st_mtime_ns for path in list_files(place)}
    same = productrec("ingest", "shop", "--out", "data/old", "--diff")
    assert (same.code, same.out) == (0, "from data/old to shop: no difference\n"), same.err
    assert {path: path.stat().st_mtime_ns for path in list_files(place)} == before
    draw(shop, "train/beer/1.jpg", "test/cola/2.jpg", "test/cola/1.jpg")  # the last has other content now
    (shop / "train/jam/3.jpg").rename(shop / "train/tea/4.jpg")
    other = productrec("ingest", "shop", "--out", "data/old", "--diff")
    assert other.code == 1, other.err
    for words in (
        "images: added 1 (train/beer/1.jpg), moved 1 (train/jam/3.jpg to train/tea/4.jpg)",
        "changed 2 (cola/1.jpg, cola/2.jpg)",
        "labels: changed 1 (train/tea/4.jpg: jam to tea)",
        "classes: added 1 (beer)",
    ):
        assert words in other.out, other.out
    assert productrec("ingest", "shop", "--out", "data/new").code == 0
    tables = productrec("ingest", "data/new", "--out", "data/old", "--diff")
    assert tables.code == 1 and "classes: added 1 (beer), renumbered 3" in tables.out, tables.out
    check_line(productrec("ingest", "shop", "--out", "data/none", "--diff"), 4, "no image table", "data/new, data/old")


def test_a_run_goes_on_with_a_source_that_changed(place, shop, productrec, monkeypatch):
    """Ingest is played alone here: training is made to stop at once."""

    class StopHere(Exception):
        pass

    def stop(*arguments, **settings):
        raise StopHere

    monkeypatch.setattr("productrec.pipeline.play.train_recipe", stop)
    for name in ("first", "second"):  # one table for both
        write(place, f"{name}.yaml", "data: {source: shop}")
    with pytest.raises(StopHere):
        productrec("run", "first.yaml")
    draw(shop, "train/cola/9.jpg")
    check_line(productrec("run", "second.yaml"), 4, "data/shop: its source has changed", "(train/cola/9.jpg)")
    with pytest.raises(StopHere):
        productrec("run", "second.yaml", "--replace-table")
    assert "train/cola/9.jpg" in read_table(place / "data/shop")[0].index
    assert [path.name for path in (place / "data").iterdir()] == ["shop"]


def test_class_names_are_no_formulas_in_the_files_for_spreadsheets(place, productrec):
    names = ("=1+1", "@sum", "-dash", "+plus")
    draw(place / "set", *(f"{name}/{number}.jpg" for name in names for number in range(2)))
    shutil.copy(place / "set/=1+1/0.jpg", place / "set/@sum/9.jpg")  # one picture, two labels
    assert productrec("ingest", "set", "--validation-fraction", "0", "--dedup", "report").code == 0
    audited = productrec("audit", "data/set")
    assert audited.code == 0, audited.err
    for path in (place / "data/set.audit/findings.csv", place / "data/set/duplicates.csv"):
        with path.open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert any(cell.startswith("'=1+1") for cell in cells)
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    findings = pd.read_csv(place / "data/set.audit/findings.csv", dtype=str)
    findings.loc[findings["image_id"] == "'=1+1/0.jpg", "action"] = "drop"
    findings.to_csv(place / "edited.csv", index=False)
    done = productrec("ingest", "set", "--validation-fraction", "0", "--apply", "edited.csv")
    assert done.code == 0, done.err
    assert read_table(place / "data/set")[0].loc["=1+1/0.jpg", "status"] == "dropped"


# ---------------------------------------------------------------- titles without labels


def test_titles_without_labels_are_a_table_with_held_out_pairs(place, productrec):
    names = [f"{number}.jpg" for number in range(10)]
    draw(place / "shop" / "images", *names)
    write(place / "shop", "train.csv", "id,title", *(f"{name},Title {number}" for number, name in enumerate(names)))
    told = productrec("ingest", "shop", "--explain")
    assert told.code == 0, told.err
    assert "titles from title" in told.err and "file images/0.jpg, title Title 0" in told.err
    done = productrec("ingest", "shop", "--validation-fraction", "0.3")
    assert "7 train, 3 val; 0 classes; images 10 ok" in done.err
    assert "images and titles can be learned together" in done.err
    images, _ = read_table(Path("data/shop"))
    assert images["label"].isna().all()
    assert images["title"].tolist() == [f"Title {number}" for number in range(10)]


def test_captions_in_karpathys_splits_are_titles_one_a_line(place, productrec):
    names = [f"{number}.jpg" for number in range(4)]
    draw(place / "set" / "flickr30k-images", *names)
    entries = [
        {"filename": name, "split": split, "sentences": [{"raw": f"A {name}."}, {"raw": "One\nmore."}]}
        for name, split in zip(names, ("train", "train", "val", "test"), strict=True)
    ]
    (place / "set" / "dataset_flickr30k.json").write_text(json.dumps({"images": entries}))
    done = productrec("ingest", "set")
    assert "2 train, 1 val, 1 test; 0 classes; images 4 ok" in done.err
    images, _ = read_table(Path("data/set"))
    assert images.at["3.jpg", "title"] == "A 3.jpg.\nOne more."
    assert images.at["3.jpg", "path"] == "flickr30k-images/3.jpg"
