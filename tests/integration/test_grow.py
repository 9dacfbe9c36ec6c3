"""Products that come and go after the training: grown, found by prediction, removed, folded, carried to a new model."""

import json
import os
import shutil

import pytest

from productrec.demo.drawn.competition import draw_competition
from productrec.retrieval.catalogue import Catalogue
from tests.integration.test_photos import read_rows


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    """Photos of three products that the run never saw: ``new/PRODUCT``, one each, and more of them in ``asked``."""
    folder = tmp_path_factory.mktemp("later")
    drawn = folder / "competition"
    draw_competition(drawn, skus=3, train_images=4, val_images=1, test_images=1, max_side_px=48, seed=77)
    for image in json.loads((drawn / "train.json").read_text())["images"]:
        product = f"product {image['class']}"
        new = folder / "new" / product
        new.mkdir(parents=True, exist_ok=True)
        target = folder / "asked" if any(new.iterdir()) else new
        target.mkdir(exist_ok=True)
        shutil.copy(drawn / "images" / image["id"], target / f"{product} {image['id']}")
    return folder


@pytest.fixture
def shelf(finished, later):
    shutil.copytree(later / "new", finished / "new")
    shutil.copytree(later / "asked", finished / "asked")
    return finished


def show(productrec):
    done = productrec("index", "show", "runs/tiny")
    assert done.code == 0, done.err
    return {words[0]: words[-1] for line in done.out.splitlines() if len(words := line.split()) > 1}


def test_a_product_of_one_photo_is_found_and_goes_again(shelf, productrec):
    before = show(productrec)
    assert before["kind"] == "exact" and before["segments"] == "0"
    done = productrec("index", "grow", "runs/tiny", "new")
    assert done.code == 0, done.err
    assert "3 photos more, 3 new classes" in done.err
    after = show(productrec)
    assert int(after["rows"]) == int(before["rows"]) + 3 and int(after["classes"]) == int(before["classes"]) + 3
    again = productrec("index", "grow", "runs/tiny", "new")
    assert again.code == 0 and "0 photos more, 0 new classes; 3 were there already" in again.err
    assert show(productrec) == after
    asked = productrec("predict", "runs/tiny", "--images", "new", "--out", "own.csv")
    assert asked.code == 0, asked.err
    assert "the catalogue has changed since: 3 images more" in asked.err
    rows = read_rows(shelf / "own.csv")
    for name, row in rows.items():  # a photo that is there itself
        assert name.split("/")[0] in (row["class"], row["next_class"]), row
    done = productrec("index", "remove", "runs/tiny", "product 0", "1")
    assert done.code == 0, done.err
    assert productrec("predict", "runs/tiny", "--images", "asked", "--out", "gone.csv").code == 0
    for row in read_rows(shelf / "gone.csv").values():
        assert not {"product 0", "1"} & {row["class_id"], row["next_class_id"]}  # the head knows class 1
    assert int(show(productrec)["tombstones"]) > 1
    done = productrec("index", "compact", "runs/tiny")
    assert done.code == 0 and "2 segments folded" in done.err
    seen = show(productrec)
    assert (seen["segments"], seen["tombstones"]) == ("0", "0")
    assert productrec("predict", "runs/tiny", "--images", "asked", "--out", "folded.csv").code == 0
    assert (shelf / "folded.csv").read_text() == (shelf / "gone.csv").read_text()
    assert "no changes" in productrec("index", "compact", "runs/tiny").err


def test_what_the_competition_gets_does_not_change(shelf, productrec):
    before = {path: path.read_bytes() for path in (shelf / "runs/tiny/predictions").rglob("*") if path.is_file()}
    assert productrec("index", "grow", "runs/tiny", "new").code == 0
    assert productrec("index", "remove", "runs/tiny", "2").code == 0
    assert productrec("predict", "runs/tiny").code == 0
    assert before == {path: path.read_bytes() for path in before}


def test_a_table_grows_an_index_and_photos_of_a_known_class_join_it(shelf, drawn, productrec):
    known = json.loads((drawn / "train.json").read_text())["images"][0]
    (shelf / "shop/3").mkdir(parents=True)
    shutil.copy(drawn / "images" / known["id"], shelf / "shop/3/again.jpg")
    done = productrec("index", "grow", "runs/tiny", "shop")
    assert done.code == 0 and "1 photos more, 0 new classes" in done.err
    assert productrec("ingest", "new", "--out", "data/new", "--format", "folders").code == 0
    done = productrec("index", "grow", "runs/tiny", "data/new")
    assert done.code == 0 and "3 new classes" in done.err, done.err


def test_what_cannot_be_grown_is_told(shelf, productrec):
    (shelf / "new/broken").mkdir()
    (shelf / "new/broken/a.jpg").write_bytes(b"no photo")
    (shelf / "new/loose.jpg").write_bytes(b"no photo")
    done = productrec("index", "grow", "runs/tiny", "new")
    assert done.code == 0, done.err
    assert "lie in no product's folder: 1 (loose.jpg)" in done.err
    assert "broken/a.jpg" in done.err and "without one readable photo are left out: 1 (broken)" in done.err
    shutil.copytree("new/broken", "bad/broken")
    (shelf / "flat").mkdir()
    shutil.copy("new/loose.jpg", "flat/a.jpg")
    for source, words in (("nowhere", "one folder a product"), ("flat", "folder of its name"), ("bad", "can be read")):
        done = productrec("index", "grow", "runs/tiny", source)
        assert done.code == 3 and words in done.err, done.err
    done = productrec("index", "remove", "runs/tiny", "product 0", "product 9")
    assert done.code == 3 and "product 9" in done.err and "Near to" in done.err
    assert Catalogue(shelf / "runs/tiny/index/plain").has_class("product 0")  # all or none
    shutil.rmtree("runs/tiny/index")
    done = productrec("index", "grow", "runs/tiny", "new")
    assert done.code == 4 and "productrec predict runs/tiny" in done.err


def test_a_grown_catalogue_is_carried_to_a_new_model(shelf, productrec):
    assert productrec("index", "grow", "runs/tiny", "new").code == 0
    assert productrec("index", "remove", "runs/tiny", "2", "product 1").code == 0
    shutil.copytree("runs/tiny", "runs/next")
    shutil.rmtree("runs/next/index/plain.grown")
    os.rename("new", "away")
    done = productrec("index", "renew", "runs/tiny", "runs/next")
    assert done.code == 4 and "must be where they were" in done.err
    os.rename("away", "new")
    done = productrec("index", "renew", "runs/tiny", "runs/next")
    assert done.code == 0, done.err
    assert "2 grown photos embedded again, 1 classes removed" in done.err
    assert "both name the same class for 1.000" in done.err
    old, new = Catalogue(shelf / "runs/tiny/index/plain"), Catalogue(shelf / "runs/next/index/plain")
    assert sorted(old.list_ids()) == sorted(new.list_ids())
    again = productrec("index", "renew", "runs/tiny", "runs/next")
    assert again.code == 4 and "no changes of its own" in again.err


def test_a_worse_model_is_not_switched_to(shelf, productrec, monkeypatch):
    from productrec.retrieval.agreement import Agreement

    assert productrec("index", "grow", "runs/tiny", "new").code == 0
    shutil.copytree("runs/tiny", "runs/next")
    shutil.rmtree("runs/next/index/plain.grown")
    monkeypatch.setattr("productrec.stages.renew.compare_catalogues", lambda old, new: Agreement(9, 0.9, 0.85, 0.9))
    done = productrec("index", "renew", "runs/tiny", "runs/next")
    assert done.code == 4 and "not switched" in done.err and "old 0.900, new 0.850" in done.err
    assert not (shelf / "runs/next/index/plain.grown").exists()
    assert not (shelf / "runs/next/index/.plain.renewing").exists()
    assert productrec("index", "renew", "runs/tiny", "runs/next", "--tolerance", "0.1").code == 0
