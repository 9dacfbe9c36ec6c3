"""A table that is ingested again: a run finds its classes by their own names, or says why it cannot."""

import csv
import json
import shutil

import pytest

from productrec.artifacts import compute_file_digest
from productrec.assembly.training_data import add_pseudo_labels
from productrec.data.table import load_table, save_table
from productrec.recipe import load_recipe
from productrec.recognition.probabilities import load_probabilities
from tests.integration.conftest import TINY, run_in, write_recipe

SETTINGS = [*TINY, "train.epochs=1", "loss.metric=soft_triple", "predict.keep_parts=true"]


def copy_shop(drawn, shop):
    """Class folders train/ and val/, and test/ without labels."""
    for split in ("train", "val", "test"):
        for image in json.loads((drawn / f"{split}.json").read_text())["images"]:
            folder = shop / split / (f"sku {image['class']}" if split != "test" else "")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn / "images" / image["id"], folder / image["id"])


@pytest.fixture(scope="module")
def shop_run(drawn, tmp_path_factory):
    """A folder with a shop of class folders, its table, a run and its predictions; copy it before changing it."""
    folder = tmp_path_factory.mktemp("shop")
    copy_shop(drawn, folder / "shop")
    write_recipe(folder, "shop", name="shop", competition="plain")
    run_in(folder, "run", "shop.yaml", *SETTINGS)
    return folder


@pytest.fixture
def shop(shop_run, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(shop_run, folder)
    monkeypatch.chdir(folder)
    return folder


def add_class(shop, productrec):
    """A class that sorts before all others, so that every other class gets another number."""
    shutil.copytree(shop / "shop/train/sku 0", shop / "shop/train/apple")
    shutil.rmtree(shop / "data/shop")  # a table that is written over may keep its numbers
    done = productrec("ingest", "shop", "--out", "data/shop")
    assert done.code == 0, done.err


def read_names(shop, split="test", part="parts/head/"):
    """The most probable class of each image, by name."""
    found = load_probabilities(shop / f"runs/shop/predictions/plain/{part}{split}")
    best = found.values.argmax(axis=1)
    return {image_id: found.names[place] for image_id, place in zip(found.ids, best, strict=True)}


def test_classes_keep_their_names_when_another_is_added(shop, productrec):
    before = read_names(shop), read_names(shop, "val")
    scores = load_probabilities(shop / "runs/shop/predictions/plain/parts/head/val").made["validation"]
    add_class(shop, productrec)
    done = productrec("predict", "runs/shop")
    assert done.code == 0, done.err
    assert "does not know 1 (apple)" in done.err and "has changed since" in done.err
    assert (read_names(shop), read_names(shop, "val")) == before
    again = load_probabilities(shop / "runs/shop/predictions/plain/parts/head/val")
    assert again.made["validation"] == scores
    assert again.class_ids == [1, 2, 3, 4, 5, 6]
    assert productrec("submit", "runs/shop").code == 0
    with (shop / "submissions/shop.csv").open(newline="") as file:
        labels = {row["id"]: row["label"] for row in csv.DictReader(file)}
    assert labels == read_names(shop, part="")


def test_a_class_that_was_renamed_is_refused_by_name(shop, productrec):
    (shop / "shop/train/sku 3").rename(shop / "shop/train/melon")
    (shop / "shop/val/sku 3").rename(shop / "shop/val/melon")
    assert productrec("ingest", "shop", "--out", "data/shop", "--replace").code == 0
    done = productrec("predict", "runs/shop")
    assert done.code == 4 and "1 (sku 3) are not" in done.err


def test_centres_are_measured_on_the_classes_they_are_of(shop, productrec):
    def read_accuracy():
        assert productrec("centres", "runs/shop").code == 0
        return json.loads((shop / "runs/shop/prototypes/manifest.json").read_text())["notes"]["top_1_accuracy_before"]

    before = read_accuracy()
    add_class(shop, productrec)
    early = productrec("centres", "runs/shop")
    assert early.code == 4 and "run productrec predict runs/shop again" in early.err
    assert productrec("predict", "runs/shop").code == 0
    assert read_accuracy() == before


def test_pseudo_labels_are_of_the_classes_they_were_predicted_as(shop, productrec):
    expected = read_names(shop, part="")
    add_class(shop, productrec)  # and no prediction after it
    table = load_table(shop / "data/shop")
    settings = ["train.pseudo_labels=runs/shop/predictions/plain/test", "train.pseudo_confidence=0"]
    recipe = load_recipe(shop / "shop.yaml", settings)
    rows = table.select(["train"])
    added = add_pseudo_labels(rows, table, recipe).iloc[len(rows) :]
    assert dict(zip(added["image_id"], table.get_class_names(added["label"].tolist()), strict=True)) == expected


def test_predictions_of_an_earlier_state_are_neither_submitted_nor_blended(shop, productrec):
    first = next((shop / "shop/test").iterdir())
    shutil.copy(first, first.with_name("zz-new.png"))
    assert productrec("ingest", "shop", "--out", "data/shop", "--replace").code == 0
    (shop / "submissions/shop.csv").unlink()
    for command in (["submit", "runs/shop"], ["ensemble", "runs/shop", "runs/shop", "--out", "runs/both"]):
        done = productrec(*command)
        assert done.code == 4 and "1 (zz-new.png) added" in done.err, done.err
        assert "Run `productrec predict` again" in done.err
    assert not (shop / "submissions/shop.csv").exists() and not (shop / "runs/both").exists()
    assert productrec("predict", "runs/shop").code == 0
    assert productrec("submit", "runs/shop").code == 0


def test_a_test_image_of_other_content_and_classes_of_other_ids_are_told_too(shop, productrec):
    pictures = sorted((shop / "shop/test").iterdir())
    kept = pictures[0].read_bytes()
    pictures[0].write_bytes(pictures[1].read_bytes())
    assert productrec("ingest", "shop", "--out", "data/shop").code == 0
    done = productrec("submit", "runs/shop")
    assert done.code == 4 and "images have changed" in done.err
    pictures[0].write_bytes(kept)
    add_class(shop, productrec)
    done = productrec("submit", "runs/shop")
    assert done.code == 4 and "other ids" in done.err


def test_predictions_stay_good_for_a_table_that_changed_elsewhere(shop, productrec):
    shutil.copy(next((shop / "shop/train/sku 0").iterdir()), shop / "shop/train/sku 1/more.png")
    assert productrec("ingest", "shop", "--out", "data/shop", "--replace").code == 0
    assert productrec("submit", "runs/shop").code == 0


def test_a_run_is_not_resumed_on_a_table_that_has_changed(shop, productrec):
    (shop / "runs/shop/manifest.json").unlink()  # as if it had been stopped
    add_class(shop, productrec)
    done = productrec("train", "shop.yaml", *SETTINGS, "--resume")
    assert done.code == 4 and "table" in done.err


def test_a_checkpoint_without_names_serves_its_own_table_alone(shop, productrec):
    folder = shop / "runs/shop/checkpoints/best"
    classes, manifest = folder / "classes.json", folder / "manifest.json"
    classes.write_text(json.dumps(json.loads(classes.read_text())["ids"]))
    noted = json.loads(manifest.read_text())
    noted["files"]["classes.json"] = {"sha256": compute_file_digest(classes), "bytes": classes.stat().st_size}
    manifest.write_text(json.dumps(noted))
    assert productrec("predict", "runs/shop").code == 0
    add_class(shop, productrec)
    done = productrec("predict", "runs/shop")
    assert done.code == 4 and "before class names were kept" in done.err and "train anew" in done.err


def test_known_labels_of_test_images_are_scored_apart(shop, drawn, productrec):
    table = load_table(shop / "data/shop")
    with (drawn / "hidden/test_labels.csv").open(newline="") as file:
        labels = {row["id"]: int(row["class"]) for row in csv.DictReader(file)}
    plain = productrec("predict", "runs/shop")
    assert "labels of the source" not in plain.out
    images = table.images.copy()
    is_test = images["split"] == "test"
    images.loc[is_test, "label"] = [labels[image_id] for image_id in images.loc[is_test, "image_id"]]
    save_table(
        shop / "data/told",
        images,
        table.classes,
        root=table.root,
        sample=None,
        inputs={},
        settings={"format": "folders"},
        numbered=True,
    )
    done = productrec("predict", "runs/shop", "data.table=data/told", "--tta")
    assert done.code == 0, done.err
    assert "validation: 18 images" in done.out and "test, labels of the source: 18 images" in done.out
    assert done.out.count("with TTA") == 2
    both = productrec("predict", "runs/shop", "runs/shop/../shop", "data.table=data/told")
    assert both.code == 4  # one name twice
