"""A folder of new photos and a run: a line a file, from nothing but the run folder."""

import csv
import json
import shutil

import pytest

from productrec.recognition.probabilities import load_probabilities
from productrec.stages.photos import COLUMNS
from tests.integration.conftest import TINY, write_recipe


def read_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.fixture
def alone(trained, drawn, tmp_path, monkeypatch):
    """A run folder and some photos of the test split, without table, source or recipe."""
    folder = tmp_path / "alone"
    shutil.copytree(trained / "runs/tiny", folder / "tiny")
    for image in json.loads((drawn / "test.json").read_text())["images"]:
        (folder / "photos/monday").mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / "images" / image["id"], folder / "photos/monday" / image["id"])
    monkeypatch.chdir(folder)
    return folder


def test_photos_get_what_the_test_split_gets(alone, productrec):
    done = productrec("predict", "tiny", "--images", "photos", "--out", "new.csv")
    assert done.code == 0, done.err
    assert "as fitted on validation, through the views plain" in done.err
    rows = read_rows(alone / "new.csv")
    known = load_probabilities(alone / "tiny/predictions/plain/test")
    assert tuple(next(iter(rows.values()))) == COLUMNS
    assert set(rows) == {f"monday/{image_id}" for image_id in known.ids}
    for image_id, values in zip(known.ids, known.values, strict=True):
        row = rows[f"monday/{image_id}"]
        # Half precision may put classes of nearly equal probability in another order.
        for place, prefix in zip((-values.astype(float)).argsort(kind="stable")[:2], ("", "next_"), strict=True):
            said = known.class_ids.index(int(row[f"{prefix}class_id"]))
            assert row[f"{prefix}class"] == known.names[said]
            assert float(values[said]) == pytest.approx(float(values[place]), abs=1e-3)
            assert float(row[f"{prefix}probability"]) == pytest.approx(float(values[said]), abs=1e-3)
        assert row["reason"] == ""


def test_what_is_no_photo_is_a_line_with_its_reason(alone, productrec):
    whole = next((alone / "photos/monday").iterdir()).read_bytes()
    (alone / "photos/half.jpg").write_bytes(whole[: len(whole) // 2])
    (alone / "photos/notes, of a day.txt").write_text("no photo")
    (alone / "photos/.hidden").write_text("left out")
    (alone / "photos/=1+1.txt").write_text("no formula either")
    done = productrec("predict", "tiny", "--images", "photos", "--out", "photos/new.csv")
    assert done.code == 0, done.err
    assert "3 (=1+1.txt, half.jpg, notes, of a day.txt) are no photos" in done.err and "18 classified" in done.err
    rows = read_rows(alone / "photos/new.csv")
    assert len(rows) == 21 and ".hidden" not in rows
    assert "'=1+1.txt" in rows  # a spreadsheet would compute it
    assert rows["half.jpg"]["class"] == "" and rows["half.jpg"]["reason"]
    assert "not a picture" in rows["notes, of a day.txt"]["reason"]
    again = productrec("predict", "tiny", "--images", "photos", "--out", "photos/new.csv")
    assert again.code == 4 and "--replace" in again.err
    again = productrec("predict", "tiny", "--images", "photos", "--out", "photos/new.csv", "--replace")
    assert again.code == 0 and len(read_rows(alone / "photos/new.csv")) == 21


def test_the_head_speaks_alone_where_neighbours_cannot(alone, productrec):
    through = productrec("predict", "tiny", "--views", "flip", "--images", "photos", "--out", "flip.csv")
    assert through.code == 0, through.err
    assert "the head alone" in through.err and "productrec predict tiny --views flip" in through.err
    manifest = alone / "tiny/index/plain/manifest.json"
    noted = json.loads(manifest.read_text())
    noted["notes"]["weights_digest"] = "of other weights"
    manifest.write_text(json.dumps(noted))
    done = productrec("predict", "tiny", "--images", "photos", "--out", "new.csv")
    assert done.code == 0 and "the head alone, since its index is of an earlier time" in done.err
    assert set(read_rows(alone / "new.csv")) == set(read_rows(alone / "flip.csv"))


def test_a_classifier_of_an_earlier_index_is_passed_over(alone, productrec):
    manifest = alone / "tiny/classifier/plain/manifest.json"
    noted = json.loads(manifest.read_text())
    noted["inputs"]["index"] = "of an earlier time"
    manifest.write_text(json.dumps(noted))
    done = productrec("predict", "tiny", "--images", "photos", "--out", "new.csv")
    assert done.code == 0, done.err
    assert "the head alone, since its index is of an earlier time" in done.err


def test_several_runs_are_averaged_class_by_class(alone, productrec):
    shutil.copytree("tiny", "twin")
    recipe = alone / "twin/recipe.yaml"
    assert "batch_size: 128" in recipe.read_text()
    recipe.write_text(
        recipe.read_text().replace("batch_size: 128", "batch_size: 4")
    )  # they go side by side all the same
    assert productrec("predict", "tiny", "--images", "photos", "--out", "one.csv").code == 0
    done = productrec("predict", "tiny", "twin", "--weights", "3,1", "--images", "photos", "--out", "two.csv")
    assert done.code == 0, done.err
    assert read_rows(alone / "two.csv") == read_rows(alone / "one.csv")


def test_what_cannot_be_classified_is_told_in_a_line(alone, productrec):
    (alone / "empty").mkdir()
    (alone / "texts").mkdir()
    (alone / "texts/a.txt").write_text("no photo")
    for folder, words in (("empty", "holds no file"), ("nowhere", "must be a folder"), ("texts", "not one of 1 files")):
        done = productrec("predict", "tiny", "--images", folder, "--out", "new.csv")
        assert done.code == 3 and words in done.err, done.err
    assert not (alone / "new.csv").exists()
    assert productrec("predict", "tiny", "--images", "photos").code == 2
    done = productrec("predict", "tiny", "data.table=x", "--images", "photos", "--out", "new.csv")
    assert done.code == 2 and "needs no image table" in done.err


def test_a_shop_without_a_test_set_comes_to_an_end(place, drawn, productrec):
    for image in json.loads((drawn / "train.json").read_text())["images"]:
        folder = place / "shop" / f"sku {image['class']}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / "images" / image["id"], folder / image["id"])
    recipe = write_recipe(place, "shop", competition="plain")
    done = productrec("run", recipe, *TINY, "train.epochs=1", "data.validation_fraction=0.25")
    assert done.code == 0, done.err
    assert "has no test images" in done.err
    assert "--images FOLDER --out new.csv" in done.err and "Next: `productrec serve runs/tiny`" in done.err
    assert "validation: 12 images" in done.out and "95 % interval" in done.out
    missing = productrec("submit", "runs/tiny")
    assert missing.code == 4 and "no test images" in missing.err and "--images FOLDER" in missing.err
    assert productrec("predict", "runs/tiny", "--images", "shop/sku 0", "--out", "new.csv").code == 0
    assert {row["class"] for row in read_rows(place / "new.csv").values()} <= {f"sku {number}" for number in range(6)}
    ensembled = productrec("ensemble", "runs/tiny", "--out", "runs/one")
    assert ensembled.code == 0, ensembled.err


def test_one_class_alone_is_told(place, drawn, productrec):
    for image in json.loads((drawn / "train.json").read_text())["images"]:
        (place / "shop/everything").mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / "images" / image["id"], place / "shop/everything" / image["id"])
    recipe = write_recipe(place, "shop", competition="plain")
    done = productrec("run", recipe, *TINY, "train.epochs=1", "train.sampler=shuffle")
    assert done.code == 0, done.err
    assert done.err.count("one class alone") == 2  # before training, and beside the figures of predict
    assert productrec("predict", "runs/tiny", "--images", "shop", "--out", "new.csv").code == 0
    assert {row["next_class"] for row in read_rows(place / "new.csv").values()} == {""}
