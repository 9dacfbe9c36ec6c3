"""Sample submissions on the command line: their ids, their form, and what will not fit, told before any training."""

import json

import numpy as np

from productrec.pipeline.play import ingest_recipe
from productrec.recipe import build_recipe, save_recipe
from productrec.recognition.probabilities import write_probabilities
from tests.integration.conftest import draw
from tests.integration.test_bad_input import check_line
from tests.integration.test_sources import read_table, write


def test_a_sample_that_is_not_there_is_refused(place, shop, productrec):
    write(shop, "ids.csv", "id,label", "1,cola")
    for more in ((), ("--explain",)):
        check_line(
            productrec("ingest", "shop", "--sample", "nope.csv", *more), 3, "nope.csv", "no such file", "ids.csv"
        )


def test_ids_of_the_sample_become_test_rows_with_their_files(place, productrec):
    draw(place / "set", "train/cola/1.jpg", "train/jam/2.jpg", "test/8.jpg", "test/9.jpg")
    write(place / "set", "list.csv", "image,product", "9,cola", "8,cola", "7,cola")
    done = productrec("ingest", "set", "--sample", "list.csv")
    assert done.code == 0, done.err
    images, _ = read_table(place / "data/set")
    tests = images[images["split"] == "test"]
    assert tests["status"].to_dict() == {"8": "ok", "9": "ok", "7": "missing"}
    assert (place / "data/set/sample_submission.csv").read_text().startswith("image,product")


def test_a_sample_that_the_contract_cannot_write_is_told_before_training(place, shop, productrec):
    write(
        shop,
        "sample_submission.csv",
        "id,cola,jam,tea",
        *(f"{n}/{m}.jpg,0,0,1" for n in ("cola", "jam") for m in "123"),
    )
    told = productrec("ingest", "shop", "--explain")
    assert told.code == 0 and "has 4 columns (id, cola, jam, tea)" in told.err
    assert "does not list: 3 (tea/1.jpg" in told.err or "4 columns" in told.err
    check_line(productrec("ingest", "shop", "--explain", "--competition", "imaterialist2019"), 5, "cannot write")
    write(place, "mine.yaml", "data: {source: shop}", "model: {pretrained: false}")
    check_line(productrec("run", "mine.yaml"), 5, "4 columns", "submit.sample=none")
    assert not (place / "runs").exists() and not (place / "data").exists()


def test_a_sample_with_confidences_is_told_and_fits_a_contract_that_writes_them(place, shop, productrec):
    rows = ("cola 0.03", "", "jam 0.5", *["tea 0.1"] * 6)
    ids = [f"{name}/{n}.jpg" for name in ("cola", "jam", "tea") for n in "123"]
    write(shop, "sample_submission.csv", "id,landmarks", *map(",".join, zip(ids, rows, strict=True)))
    for more in ((), ("--competition", "google_landmark2019")):
        told = productrec("ingest", "shop", "--explain", *more)
        assert told.code == 0, told.err
        assert "1 label with its confidence a row in landmarks" in told.out + told.err
    check_line(
        productrec("ingest", "shop", "--explain", "--competition", "products10k"), 5, "cannot write", "confidence"
    )


def test_submit_takes_form_and_order_from_the_sample_that_the_table_holds(place, shop, productrec, monkeypatch):
    ids = [f"{name}/{n}.jpg" for name in ("tea", "cola", "jam") for n in "312"]
    write(shop, "sample_submission.csv", "image;product_id", *(f"{name};cola|jam" for name in ids))
    assert productrec("ingest", "shop").code == 0
    run = place / "runs" / "first"
    recipe = build_recipe({"name": "first", "data": {"source": "shop"}})
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(save_recipe(recipe))
    with write_probabilities(
        run / "predictions/plain/test",
        ids=sorted(ids),
        class_ids=[0, 1, 2],
        names=["cola", "jam", "tea"],
        fallback=[],
        made={},
        inputs={"table": json.loads((place / "data/shop/manifest.json").read_text())["inputs"]["rows"]},
        settings={},
    ) as values:
        values[:] = np.array([0.25, 0.125, 0.625])
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    done = productrec("submit", run)
    assert done.code == 0, done.err
    lines = (place / "elsewhere/submissions/first.csv").read_text().splitlines()
    assert lines == ["image;product_id", *(f"{name};tea|cola" for name in ids)]
    assert "agrees with" in done.err
    none = productrec("submit", run, "--sample", "none")
    assert none.code == 0 and "no sample submission to compare with" in none.err
    assert (place / "elsewhere/submissions/first.csv").read_text().startswith("id,label\n")
    monkeypatch.chdir(place)
    assert "written" in productrec("ingest", "shop", "--sample", "none").err
    assert not (place / "data/shop/sample_submission.csv").exists()


def test_a_sample_that_cannot_be_read_can_be_left_out(place, productrec):
    draw(place / "set/images", "a.jpg", "b.jpg")
    write(place / "set", "train.csv", "id,label", "a,x", "b,y")
    write(place / "set", "sample_submission.csv", "id,label")
    check_line(productrec("ingest", "set"), 3, "must have a header and at least one row", "sample_submission.csv")
    assert productrec("ingest", "set", "--sample", "none").code == 0


def test_contracts_are_listed_explained_and_made(place, productrec):
    listed = productrec("competitions")
    assert listed.code == 0 and "plain" in listed.out and "imaterialist2019" in listed.out
    assert "Where the source has a sample submission" in productrec("competitions", "show", "plain").out
    write(place / "race", "sample.csv", "image,product_id", "1.jpg,5 6 7")
    made = productrec("competitions", "new", "--from", "race/sample.csv")
    assert made.code == 0 and "3 different labels" in made.out, made.err
    assert "image and product_id" in productrec("competitions", "show", "race.yaml").out
    check_line(productrec("competitions", "new", "--from", "race/sample.csv"), 5, "is there already", "--out")
    check_line(productrec("competitions", "new", "--from", "race/absent.csv"), 5, "No such file")
    write(place, "bad.yaml", "name: bad")
    check_line(
        productrec("competitions", "show", "bad.yaml"), 5, "title must be given", "metric must be given", "id_col"
    )


def test_placeholders_of_a_sample_do_not_turn_names_into_numbers(place, shop, productrec):
    """A sample full of zeros says nothing of the labels: 0 is a number of productrec's own, which no server knows."""
    ids = [f"{name}/{n}.jpg" for name in ("tea", "cola", "jam") for n in "312"]
    write(shop, "sample_submission.csv", "image,product_id", *(f"{name},0" for name in ids))
    assert productrec("ingest", "shop").code == 0
    run = place / "runs" / "first"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(save_recipe(build_recipe({"name": "first", "data": {"source": "shop"}})))
    with write_probabilities(
        run / "predictions/plain/test",
        ids=sorted(ids),
        class_ids=[0, 1, 2],
        names=["cola", "jam", "tea"],
        keys=["cola", "jam", "tea"],
        fallback=[],
        made={"views": "plain"},
        inputs={},
        settings={},
    ) as values:
        values[:] = np.array([0.2, 0.3, 0.5])
    done = productrec("submit", "runs/first", "--out", "out.csv")
    assert done.code == 0, done.err
    assert {line.rpartition(",")[2] for line in (place / "out.csv").read_text().splitlines()[1:]} == {"tea"}


def test_recipes_of_other_seeds_share_a_table_and_other_hold_outs_are_told(place, productrec):
    draw(place / "set", *(f"{name}/{n}.jpg" for name in ("cola", "jam") for n in range(8)))
    assert productrec("ingest", "set").code == 0
    before = read_table(place / "data/set")[0]["split"].to_dict()
    for seed in (0, 1):
        recipe = build_recipe({"name": f"s{seed}", "seed": seed, "data": {"source": "set"}})
        ingest_recipe(recipe)
        assert read_table(place / "data/set")[0]["split"].to_dict() == before
    done = productrec("ingest", "set", "--validation-fraction", "0.5")
    assert done.code == 0, done.err
    assert "validation_fraction 0.1, now 0.5" in done.out + done.err and "data.table=FOLDER" in done.out + done.err


def test_a_damaged_table_can_be_replaced(place, productrec):
    draw(place / "set", *(f"{name}/{n}.jpg" for name in ("cola", "jam") for n in range(4)))
    assert productrec("ingest", "set").code == 0
    (place / "data/set/classes.parquet").write_bytes(b"")
    done = productrec("ingest", "set", "--replace")
    assert done.code == 0, done.err
    assert "names are numbered anew" in done.err and "Traceback" not in done.err


def test_a_source_in_data_is_no_table_of_itself(place, productrec):
    draw(place / "data/set", *(f"{name}/{n}.jpg" for name in ("cola", "jam") for n in range(4)))
    done = productrec("ingest", "data/set")
    assert done.code == 0, done.err
    assert (place / "data/set.table/images.parquet").exists()
    assert build_recipe({"name": "x", "data": {"source": "data/set"}}).table.name == "set.table"
